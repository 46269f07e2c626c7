"""What surrounds every block: norms, residual adds, dropout - and the tensor-parallel region's edges."""

from __future__ import annotations

import numpy as np

from costmodel.layouts import Column
from costmodel.ops import Elementwise, Lowered, Op, Saved, Setting, Split, Transfer


def lower_norms(count: int, setting: Setting, split: Split) -> Lowered:
    """Norms of one block and its residual add, on the sequence-parallel shard.

    Forward reads and writes once for each norm, and three times for the add; backward half as much again.
    Saved: each norm's input with what an eager norm adds, and one byte per element where the block's output is
    dropped out.
    Source: Korthikanti et al. 2022, section 4.1 (4sbh for two norms, sbh for a dropout mask).
    """
    size = split.resident_tokens * setting.model.hidden_size
    normed, added = (size * setting.activation_bytes * passes for passes in (2.0 * count, 3.0))
    rms_norm = setting.model.norm == "rmsnorm"
    lowered = Lowered(
        ops=[
            Elementwise("norm", normed, 1.5 * normed, modules=("layernorm",), rms_norm=rms_norm),
            Elementwise("residual", added, 1.5 * added),
        ]
    )
    for _ in range(count):
        lowered.saved += save_norm_input(size, setting)
    if setting.model.hidden_dropout:
        lowered.ops.append(Elementwise("dropout", size * 5.0, size * 5.0))
        lowered.saved.append(Saved("dropout mask", size))
    return lowered


def save_norm_input(elements: Column, setting: Setting, name: str = "norm") -> list[Saved]:
    """What one norm keeps of ``elements``: its input, and the copies that an RMS norm of PyTorch operations adds.

    Plain bf16 forms keep 2 (all in bf16), 4 (one fp32 copy and the normed result) or 6 bytes beside the 2 of the input;
    in fp32 the normed result, 4. A layer norm is one kernel: its input alone.
    """
    kept = [Saved(f"{name} input", elements * setting.activation_bytes)]
    extra = setting.runtime.kernels.norm_extra_bytes
    if setting.model.norm == "rmsnorm" and extra:
        kept.append(Saved(f"{name} intermediates", elements * extra))
    return kept


def cross_tensor_region(setting: Setting, split: Split, in_features: int | None = None, reductions: int = 1) -> Lowered:
    """The edge into a tensor-parallel block and the edge out of it; the rest as for ``enter_tensor_region``."""
    lowered = enter_tensor_region(setting, split, in_features or setting.model.hidden_size, reductions)
    lowered.extend(leave_tensor_region(setting, split))
    return lowered


def enter_tensor_region(
    setting: Setting, split: Split, in_features: int, reductions: int = 1, wide: bool = False
) -> Lowered:
    """The edge into a tensor-parallel block: its column-parallel products read ``in_features`` of every token.

    Sequence parallel: an all-gather; backward a reduce-scatter, and the gather again for the weight gradient where
    only the shard was kept. Otherwise: nothing; backward ``reductions`` all-reduces, of one product's gradient each.
    Saved: the products' input. Gathers are as narrow as the runtime makes them, unless the products are ``wide``; sums
    never are.
    Source: Korthikanti et al. 2022, figures 5 and 6; Transformer Engine, transformer_engine/pytorch/module
    (layernorm_linear.py: the quantizer is handed to the gather), 2025.
    """
    whole = split.tokens * in_features * setting.activation_bytes
    scattered, reduced = _by_sequence_parallelism(split, whole)
    gathered = scattered * _gathered_share(setting, wide)
    keeps_whole = setting.runtime.kernels.saves_gathered_inputs
    again = 0.0 if keeps_whole else 1.0
    transfer = Transfer(
        "tp",
        forward=(("all_gather", gathered),),
        backward=(
            ("reduce_scatter", scattered),
            ("all_gather", gathered * again),
            *(("all_reduce", reduced) for _ in range(reductions)),
        ),
        beside_gradients=True,
    )
    kept: Column = whole if keeps_whole else whole / split.sequence_shards
    return Lowered(
        ops=_copies(setting, gathered, scattered + again * gathered),
        transfers=[transfer],
        saved=[Saved("matmul input", kept, modules=("layernorm",), narrow=None if wide else "product_inputs")],
        working_bytes=[whole],
    )


def leave_tensor_region(setting: Setting, split: Split, wide: bool = False) -> Lowered:
    """The edge out: partial sums of the hidden state become whole - a reduce-scatter, backward an all-gather; without
    sequence parallelism an all-reduce, backward nothing. ``wide``: as for ``enter_tensor_region``.
    """
    whole = split.tokens * setting.model.hidden_size * setting.activation_bytes
    scattered, reduced = _by_sequence_parallelism(split, whole)
    gathered = scattered * _gathered_share(setting, wide)
    transfer = Transfer(
        "tp",
        forward=(("reduce_scatter", scattered), ("all_reduce", reduced)),
        backward=(("all_gather", gathered),),
    )
    return Lowered(ops=_copies(setting, scattered, gathered), transfers=[transfer])


def _gathered_share(setting: Setting, wide: bool) -> float:
    """Bytes that are gathered over those of the activation."""
    return 1.0 if wide else setting.gathered_bytes / setting.activation_bytes


def _copies(setting: Setting, forward: Column, backward: Column) -> list[Op]:
    """What laying out gathered sequences, and those to be scattered, reads and writes; nothing where nothing is copied.

    ``forward``, ``backward``: bytes of the whole tensors that are gathered or scattered in each pass.
    Source: PyTorch's torch/distributed/_functional_collectives.py, all_gather_tensor and reduce_scatter_tensor.
    """
    passes = 2.0 * setting.runtime.kernels.sequence_copies
    return [Elementwise("sequence layout", passes * forward, passes * backward, as_run=True)] if passes else []


def _by_sequence_parallelism(split: Split, whole: Column) -> tuple[Column, Column]:
    sharded = (split.sequence_parallel > 0) & (split.tp > 1)
    return np.where(sharded, whole, 0.0), np.where(sharded, 0.0, whole)
