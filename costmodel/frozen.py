"""Frozen parts: encoders that run forward alone, before the pipeline's passes or in its bubbles.

Before them every device of a replica runs whole parts on its share of the step's sequences, and the pipeline starts
when all are done. In the bubbles the parts of one micro-batch run piece by piece on one pipeline rank, tensor parallel
as its stage is, for the next step; every context-parallel rank computes all of it. Either way each device holds the
parts, without gradients or optimizer state, and the first stage holds their outputs.

Source: Tian et al. 2024, "DiffusionPipe", section 5. Leaves out: what pieces of one part keep between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from costmodel.collectives import Network, estimate_collective_s
from costmodel.layers import distinct_splits, estimate_layer_costs
from costmodel.layouts import Column, IntColumn, Layouts
from costmodel.lowering import lower_layer
from costmodel.ops import Setting
from costmodel.parameters import count_model
from costmodel.pipeline import count_copies
from costmodel.schema.model import FrozenPart, ModelSpec

PIECES = 8
"""Pieces of one part, at most: runs of its layers that each fit into a bubble as a whole."""


@dataclass(frozen=True)
class FrozenSeconds:
    """``ahead_s``: [n] seconds of all parts before the passes, 0 in rows that fill bubbles. ``piece_s``: [n, pieces]
    seconds of each piece for one micro-batch on a pipeline rank, parts one after the other; 0 in the other rows.
    """

    ahead_s: Column
    piece_s: Column

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> FrozenSeconds:
        return FrozenSeconds(self.ahead_s[rows], self.piece_s[rows])


def estimate_frozen_s(setting: Setting, network: Network, layouts: Layouts) -> FrozenSeconds:
    """When and how long frozen parts run; of a model without any nothing."""
    if not setting.model.frozen_parts:
        return FrozenSeconds(np.zeros(len(layouts)), np.zeros((len(layouts), 0)))
    filled = layouts.frozen_fill > 0
    piece_s = _forward_s(setting, network, _beside(layouts, layouts.tp, layouts.micro_batch_size))
    return FrozenSeconds(np.where(filled, 0.0, _ahead_s(setting, network, layouts)), piece_s * filled[:, None])


def _ahead_s(setting: Setting, network: Network, layouts: Layouts) -> Column:
    """[n] seconds before the passes.

    A replica's m · b sequences go to its pp · tp · cp devices, in rounds of b at most; the last round's outputs go to
    the first stage, earlier ones travel while later rounds run.
    """
    devices, size = layouts.pp * layouts.tp * layouts.cp, layouts.micro_batch_size
    own = -(-layouts.num_microbatches * size // devices)
    batch = np.minimum(own, size)
    round_s = _forward_s(setting, network, _beside(layouts, np.ones_like(layouts.tp), batch)).sum(axis=1)
    stride = np.where(layouts.pp > 1, layouts.stride("pp"), 1)
    sent_bytes = batch * output_bytes(setting)
    send_s = estimate_collective_s(network, "p2p", sent_bytes, np.minimum(devices, 2), stride)
    return np.asarray(-(-own // batch) * round_s + send_s)


def estimate_param_bytes(setting: Setting, layouts: Layouts) -> Column:
    """[n] bytes of all parts on one device, at the width of activations: of filled bubbles' matrices a tp-th."""
    over = np.where(layouts.frozen_fill > 0, layouts.tp, 1).astype(np.float64)
    whole = np.zeros(len(layouts))
    for part in setting.model.frozen_parts:
        params = count_model(part.model)
        sharded = sum(params.by_kind[kind].sharded for kind in part.model.layer_kinds())
        whole += params.total - sharded + sharded / over
    return np.asarray(setting.activation_bytes * whole)


def estimate_held_bytes(setting: Setting, layouts: Layouts, rank: IntColumn) -> Column:
    """[n, S] bytes that frozen parts take besides, on each rank: outputs, and in filled bubbles a layer's own tensors.

    A rank that holds a first stage keeps the outputs of all micro-batches, and in filled bubbles those of the next step
    as well. Before the passes nothing else is alive, so that a layer's tensors are never in the way.
    """
    filled = layouts.frozen_fill > 0
    sequences = (layouts.num_microbatches * layouts.micro_batch_size)[:, None] / count_copies(layouts)[:, None]
    first = (rank == 0) | ((count_copies(layouts) > 1.0)[:, None] & (rank == layouts.pp[:, None] - 1))
    held = first * np.where(filled, 2.0, 1.0)[:, None] * sequences * output_bytes(setting)
    if filled.any():
        split_over = _beside(layouts, layouts.tp, layouts.micro_batch_size)
        held = held + np.where(filled, _layer_bytes(setting, split_over), 0.0)[:, None]
    return np.asarray(held)


def output_bytes(setting: Setting) -> float:
    """Bytes of all parts' outputs for one sequence."""
    elements = sum(part.seq_len * part.model.hidden_size for part in setting.model.frozen_parts)
    return setting.activation_bytes * elements


def _beside(layouts: Layouts, tp: IntColumn, batch: IntColumn) -> Layouts:
    """The layouts as a frozen part sees them: split over tensor ranks alone."""
    one, none = np.ones_like(layouts.tp), np.zeros_like(layouts.tp)
    sequence_parallel = np.where(tp > 1, layouts.sequence_parallel, 1)
    return replace(
        layouts, tp=tp, cp_ring=one, cp_ulysses=one, ep=one, etp=one, micro_batch_size=batch, vocab_parallel=none,
        sequence_parallel=sequence_parallel,
    )  # fmt: skip


def _part_setting(setting: Setting, part: FrozenPart) -> Setting:
    """Inference in 16 bits, or wider where the workload's products are."""
    workload = setting.workload.model_copy(update={"seq_len": part.seq_len, "precision": setting.wide_precision})
    return replace(setting, model=part.model, workload=workload, num_policies=1)


def _forward_s(setting: Setting, network: Network, layouts: Layouts) -> Column:
    """[n, pieces] seconds of one batch's forward."""
    pieces = [np.zeros((len(layouts), 0))]
    for part in setting.model.frozen_parts:
        split, index = distinct_splits(layouts, part.seq_len)
        layer_s = estimate_layer_costs(_part_setting(setting, part), network, split).forward
        pieces.append((layer_s @ _piece_layers(part.model).T)[index])
    return np.concatenate(pieces, axis=1)


def _piece_layers(model: ModelSpec) -> Column:
    """[pieces, K + 2] layers of each kind, and the two ends, in each piece: runs of layers as equal as can be."""
    kinds = model.layer_kinds()
    runs = np.array_split(kinds, min(PIECES, len(kinds)))
    layers = np.zeros((len(runs), len(model.kinds) + 2))
    for piece, run in enumerate(runs):
        np.add.at(layers[piece], run, 1.0)
    layers[0, -2] = layers[-1, -1] = 1.0
    return layers


def _layer_bytes(setting: Setting, layouts: Layouts) -> Column:
    """[n] bytes alive while the largest layer of any part runs: at most what a backward would need of it."""
    largest = np.zeros(len(layouts))
    for part in setting.model.frozen_parts:
        split, index = distinct_splits(layouts, part.seq_len)
        for kind in part.model.kinds:
            lowered = lower_layer(kind, _part_setting(setting, part), split)
            own = np.sum([np.zeros_like(split.tp), *(one.num_bytes for one in lowered.saved), *lowered.working_bytes],
                         axis=0)  # fmt: skip
            largest = np.maximum(largest, own[index])
    return largest
