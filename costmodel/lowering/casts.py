"""What 8- and 4-bit products cost and save: operands made from 16-bit activations, kept narrow for the backward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from costmodel.layouts import Column
from costmodel.ops import Elementwise, Gemm, Lowered, Saved, Setting, Split
from costmodel.schema.workload import DTYPE_BYTES

TRANSPOSE_BYTES = 2.0
"""Of turning one narrow element for the weight gradient's product, in a pass of its own: read and written."""


def lower_casts(lowered: Lowered, setting: Setting, split: Split) -> list[Elementwise]:
    """One pass over each narrow product's input forward, over its output's gradient backward; none at 16 bits and up.

    ``cast_bytes`` of the runtime's kernels per element: 2 read, 1 written, 1 for the transposed copy that the weight
    gradient needs; 2 more where the scale is taken from the tensor itself, which is then read before it is narrowed.
    Where the runtime gathers narrow tensors, what a tensor-parallel region gathers is narrowed on its shard, without
    the transposed copy, which a second pass makes of the whole.
    Recomputed with the module whose product they serve.
    Leaves out: weights, which are narrowed once a step, and norms or activations that write 8 bits themselves.
    Source: Transformer Engine's documentation, FP8 recipes (delayed and current scaling), and its
    transformer_engine/pytorch/module/linear.py, 2025.
    """
    if not is_narrow(setting):
        return []
    whole = setting.runtime.kernels.cast_bytes
    gathered = _gathered_bytes(setting, split)
    return [
        Elementwise(
            f"{op.name} cast",
            (gathered if op.gathers_input else whole) * op.m * op.k * op.batch,
            (gathered if op.scatters_output else whole) * op.m * op.n * op.batch,
            op.modules,
        )
        for op in lowered.ops
        if isinstance(op, Gemm) and not op.wide
    ]


def is_narrow(setting: Setting) -> bool:
    """Whether the workload's products run in fewer than 16 bits."""
    return DTYPE_BYTES[setting.workload.precision] < 2.0


def narrow_saved(lowered: Lowered, setting: Setting) -> Lowered:
    """The same with its saved tensors as wide as the runtime's ``narrow_saves`` has them; unchanged at 16 bits and up.

    A tensor of n elements that is kept for narrow products takes n · its bytes per element, instead of n · 2.
    Source: DeepSeek-AI 2024 (DeepSeek-V3), section 3.3.3.
    """
    rules = setting.runtime.kernels.narrow_saves
    if rules is None or not is_narrow(setting):
        return lowered

    def kept(one: Saved) -> Saved:
        if one.narrow is None:
            return one
        return replace(one, num_bytes=one.num_bytes * (getattr(rules, one.narrow) / setting.activation_bytes))

    return replace(lowered, saved=[kept(one) for one in lowered.saved])


def _gathered_bytes(setting: Setting, split: Split) -> Column:
    """[u] bytes per element of the gathered tensor."""
    kernels, shards = setting.runtime.kernels, split.sequence_shards
    if not kernels.gathers_narrow:
        return np.full_like(shards, kernels.cast_bytes)
    parted = np.maximum(kernels.cast_bytes - 1.0, 0.0) / shards + TRANSPOSE_BYTES
    return np.where(shards > 1, np.minimum(parted, kernels.cast_bytes), kernels.cast_bytes)
