"""What the optimizer keeps of a parameter's history: bytes of its moments, and what handling their format takes."""

from __future__ import annotations

import numpy as np

from costmodel.gemm import peak_flops_per_s
from costmodel.layouts import OPTIMIZER_FORMATS, Column, Layouts
from costmodel.ops import Setting
from costmodel.schema.workload import Workload

INT8_BLOCK = 256
"""Elements that share one fp32 scale. Source: bitsandbytes, optim/adam.py (Dettmers et al. 2022 use 2048)."""

FP8_GROUP = 128
FP8_GROUP_BYTES = 12.0
"""Elements of a group, and its fp32 scale, exponent of the range expansion and geometric mean of its extremes. Source:
Xi et al. 2024 (COAT), section 4, and its AdamW kernel's arguments."""

RANK_SHARE = 0.25
"""Rank of the projection over the hidden size. Source: Zhu et al. 2024 (APOLLO), section 5.1."""

_LOW_RANK = OPTIMIZER_FORMATS.index("low-rank")


def moment_bytes(workload: Workload, layouts: Layouts) -> tuple[Column | float, Column | float]:
    """([n, 1], [n, 1]) bytes of the moments for each parameter of a layer, and of the embedding and the head.

    With c moments in fp32, 4c bytes: bf16 2c; int8 c · (1 + 4 / block); fp8 c · (1 + 12 / group); low-rank r of an
    m x n matrix, m <= n, c · r · n of them, where r = hidden / 4 stands for m / 4, and the random projection is drawn
    again from its seed. Embedding and head are not projected.
    Leaves out: layers' vectors, which are not projected either; matrices that are narrower than the hidden size, whose
    rank is the same and so their share larger.
    Source: Dettmers et al. 2022, section 2.1; COAT, section 4; APOLLO, algorithm 1; DeepSeek-V3, section 3.3.3.
    """
    full = workload.optimizer_state_bytes
    if not layouts.optimizer_format.any():
        return full, full
    number = full / 4.0
    of_layers = {
        "fp32": full,
        "int8": number * (1.0 + 4.0 / INT8_BLOCK),
        "fp8": number * (1.0 + FP8_GROUP_BYTES / FP8_GROUP),
        "low-rank": full * RANK_SHARE,
        "bf16": number * 2.0,
    }
    of_ends = {**of_layers, "low-rank": full}
    code = layouts.optimizer_format[:, None]
    inner, outer = (np.array([table[name] for name in OPTIMIZER_FORMATS]) for table in (of_layers, of_ends))
    return inner[code], outer[code]


def estimate_projection_s(setting: Setting, layouts: Layouts, layer_params: Column) -> Column | float:
    """[n, S] seconds in which the gradients of ``layer_params`` are projected: 2 · r FLOPs a parameter, once a step.

    APOLLO scales the gradient by channel, so that nothing is projected back. Source: Zhu et al. 2024, algorithm 1.
    """
    projects = layouts.optimizer_format == _LOW_RANK
    if not projects.any():
        return 0.0
    flops = 2.0 * RANK_SHARE * setting.model.hidden_size * layer_params * projects[:, None]
    device = setting.device
    return np.asarray(flops / (peak_flops_per_s(device, setting.wide_precision) * device.sustained_fraction))
