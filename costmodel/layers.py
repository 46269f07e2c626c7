"""What one layer costs under each distinct combination of degrees: seconds by term, bytes by policy.

Few degrees matter to a layer (tp, cp, ep, etp, micro-batch, sequence parallelism): the distinct combinations
are priced once, and rows gather.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from costmodel.collectives import Network, Placement, estimate_placed_bytes
from costmodel.hostbound import (
    EMBEDDING_LAUNCHES,
    HEAD_LAUNCHES,
    estimate_host_s,
    estimate_ramps_s,
    estimate_stall_s,
)
from costmodel.layouts import Column, Layouts
from costmodel.lowering import lower_layer
from costmodel.lowering.casts import lower_casts, narrow_saved
from costmodel.lowering.ends import lower_embedding, lower_head
from costmodel.offload import OFFLOAD_BUFFERS
from costmodel.op_times import price_ops
from costmodel.ops import Lowered, Setting, Split
from costmodel.policies import Again, price_policies
from costmodel.transfer_times import expose, group_of, price_transfers

COMPUTE_TERMS = ("gemm", "attention", "elementwise", "host")
TRANSFER_TERMS = ("tp", "cp", "ep")
LAYER_TERMS = (*COMPUTE_TERMS, *TRANSFER_TERMS)
_TERM_OF_AXIS = {"tp": "tp", "etp": "tp", "cp_ring": "cp", "cp_ulysses": "cp", "ep": "ep"}
_KEYS = ("tp", "cp_ring", "cp_ulysses", "ep", "etp", "micro_batch_size", "sequence_parallel", "vocab_over")


@dataclass(frozen=True)
class LayerCosts:
    """Per layer and micro-batch, [U, J, ...]: J = layer kinds, then embedding, then head. Where the vocabulary is split
    over pipeline ranks the last two are one rank's part.

    ``forward_s``, ``backward_s``: [U, J, T] exposed seconds by LAYER_TERMS; ``*_total_s`` with what is hidden.
    ``weight_grad_s``: [U, J] the part of ``backward_s`` that a split backward may delay.
    ``recompute_s``, ``offload_s``, ``narrow_s``: [U, J, P] exposed extra time of a policy.
    ``saved_bytes``: [U, J, P] kept on the device from forward to backward, per micro-batch; ``host_bytes``,
    ``nvme_bytes``: the same in host memory, on the node's drives; ``working_bytes``: alive only while the layer runs.
    ``pending_bytes``: what a split backward keeps besides, from input gradient to weight gradient: the gradients at
    the outputs of trained matmuls and norms, and whatever was recomputed.
    ``sent_bytes``: [U, J, P, L] one device's traffic by network level, forward and backward.
    """

    forward_s: Column
    forward_total_s: Column
    backward_s: Column
    backward_total_s: Column
    weight_grad_s: Column
    recompute_s: Column
    offload_s: Column
    narrow_s: Column
    saved_bytes: Column
    host_bytes: Column
    nvme_bytes: Column
    working_bytes: Column
    pending_bytes: Column
    sent_bytes: Column

    @cached_property
    def forward(self) -> Column:
        """[U, J] seconds of one forward."""
        return np.asarray(self.forward_s.sum(axis=-1))

    @cached_property
    def extra_s(self) -> Column:
        """[U, J, P] what a policy adds to a layer's passes, all of it counted with the backward."""
        return np.asarray(self.recompute_s + self.offload_s + self.narrow_s)

    @cached_property
    def backward(self) -> Column:
        """[U, J, P] seconds of one full backward, recomputation, casts and exposed copies included."""
        return np.asarray(self.backward_s.sum(axis=-1)[..., None] + self.extra_s)

    @property
    def num_policies(self) -> int:
        """P, the length of the policy axis: the first so many of POLICIES."""
        return int(self.saved_bytes.shape[2])

    @cached_property
    def uses_nvme(self) -> bool:
        """Whether any policy on the axis sends anything to a drive."""
        return bool(self.nvme_bytes.any())

    @property
    def pinned_bytes(self) -> Column:
        """[U, J, P] host memory through which a layer's copies pass to a drive, while it runs."""
        return OFFLOAD_BUFFERS * self.nvme_bytes


def distinct_splits(layouts: Layouts, seq_len: int) -> tuple[Split, NDArray[np.intp]]:
    """The distinct combinations of the degrees that a layer's cost depends on, and each row's index among them."""
    code = np.zeros(len(layouts), np.int64)
    for name in _KEYS:
        column = getattr(layouts, name)
        code = code * (int(column.max(initial=0)) + 1) + column
    _, first, index = np.unique(code, return_index=True, return_inverse=True)
    columns = {name: getattr(layouts, name)[first].astype(np.float64) for name in _KEYS}
    return Split(**columns, seq_len=float(seq_len)), index.reshape(-1)


def estimate_layer_costs(setting: Setting, network: Network, split: Split) -> LayerCosts:
    """Price every layer kind and both ends for each distinct combination in ``split``."""
    head = lower_head(setting, split)
    parts: list[tuple[Lowered, float]] = []
    for kind in setting.model.kinds:
        lowered = lower_layer(kind, setting, split)
        if kind.mtp:
            # A layer that predicts further tokens has a head of its own, whole.
            lowered.extend(lower_head(setting, replace(split, vocab_over=np.ones_like(split.tp))))
        parts.append((lowered, setting.runtime.kernels.launches_per_layer))
    parts += [(lower_embedding(setting, split), EMBEDDING_LAUNCHES), (head, HEAD_LAUNCHES)]
    axes = {transfer.axis for lowered, _ in parts for transfer in lowered.transfers}
    places: dict[str, Placement] = {axis: network.place(*group_of(axis, split)) for axis in axes}
    priced = [_price(lowered, launches, setting, network, split, places) for lowered, launches in parts]
    stacked = {name: np.stack([one[name] for one in priced], axis=1) for name in priced[0]}
    return LayerCosts(**stacked)


def _price(
    lowered: Lowered, launches: float, setting: Setting, network: Network, split: Split, places: dict[str, Placement]
) -> dict[str, Column]:
    shape, lowered = split.tp.shape, narrow_saved(lowered, setting)
    # By term, exposed and with what is hidden: views of the columns below.
    forward_s, forward_total_s, backward_s, backward_total_s = np.zeros((4, len(LAYER_TERMS), *shape))
    forward, forward_total, backward, backward_total = (
        dict(zip(LAYER_TERMS, columns, strict=True))
        for columns in (forward_s, forward_total_s, backward_s, backward_total_s)
    )
    weight_grad = np.zeros(shape)
    again = Again.of(lowered, setting, split, len(network.names))
    ops = (*lowered.ops, *lower_casts(lowered, setting, split))
    for op, (term, op_s, input_grad_s, weight_grad_s) in zip(ops, price_ops(ops, setting), strict=True):
        again.add_op(op, op_s)
        forward[term] += op_s
        backward[term] += input_grad_s + weight_grad_s
        weight_grad += weight_grad_s
    for terms, ramps_s in zip((forward, backward), estimate_ramps_s(launches, lowered, setting, split), strict=True):
        terms["elementwise"] += ramps_s
    sent_forward, sent_backward = np.zeros((*shape, len(network.names))), np.zeros((*shape, len(network.names)))
    # Of the others nobody has anyone to talk to.
    transfers = [one for one in lowered.transfers if places[one.axis].size.max(initial=1.0) > 1.0]
    priced = price_transfers(transfers, setting, places)
    for transfer, (there_s, back_s) in zip(transfers, priced, strict=True):
        term, place = _TERM_OF_AXIS[transfer.axis], places[transfer.axis]
        for kind, num_bytes in transfer.forward:
            sent = estimate_placed_bytes(place, kind, num_bytes, transfer.copies, transfer.groups)
            sent_forward += sent
            again.add(transfer.modules, 0.0, sent)
        for kind, num_bytes in transfer.backward:
            sent_backward += estimate_placed_bytes(place, kind, num_bytes, transfer.copies, transfer.groups)
        exposed_s = expose(transfer, there_s, forward, backward, setting, split)
        forward[term] += exposed_s
        again.add(transfer.modules, exposed_s)
        forward_total[term] += there_s
        backward[term] += expose(transfer, back_s, backward, forward, setting, split, backward=True)
        backward_total[term] += back_s
    for terms, host_s in zip((forward, backward), estimate_host_s(launches, lowered, setting, split), strict=True):
        # Nothing of the host's is there yet.
        terms["host"] += estimate_stall_s(sum(terms.values()), host_s, setting) + lowered.waits_s
    again.add(("moe",), lowered.waits_s)
    forward_total_s[: len(COMPUTE_TERMS)] = forward_s[: len(COMPUTE_TERMS)]
    backward_total_s[: len(COMPUTE_TERMS)] = backward_s[: len(COMPUTE_TERMS)]
    policies = price_policies(lowered, forward, setting, split, sent_forward, again)
    return {
        "forward_s": forward_s.T,
        "forward_total_s": forward_total_s.T,
        "backward_s": backward_s.T,
        "backward_total_s": backward_total_s.T,
        "weight_grad_s": weight_grad,
        **{name: column for name, column in policies.items() if name != "sent_again"},
        "sent_bytes": (sent_forward + sent_backward)[:, None, :] + policies["sent_again"],
    }
