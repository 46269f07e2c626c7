"""Seconds of a layer's matrix products: every distinct shape is priced once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from costmodel.columns import distinct_columns
from costmodel.gemm import estimate_gemm_s
from costmodel.grouped import estimate_grouped_gemm_s
from costmodel.layouts import Column
from costmodel.ops import Gemm, Setting


class _Product(NamedTuple):
    """``batch`` products (m x k) · (k x n), that write ``out_bytes`` per element of their output; columns [u]."""

    m: ArrayLike
    n: ArrayLike
    k: ArrayLike
    batch: ArrayLike
    out_bytes: float


def price_gemms(gemms: Sequence[Gemm], setting: Setting) -> list[tuple[Column, Column, Column]]:
    """(forward, input gradient, weight gradient) seconds of each, [u]; what has no weight (scores) has both gradients
    in the second."""
    products = [_products(op, setting) for op in gemms]
    found: list[list[Column]] = [[] for _ in gemms]
    for wide, grouped in sorted({(op.wide, op.grouped) for op in gemms}):
        alike = [place for place, op in enumerate(gemms) if (op.wide, op.grouped) == (wide, grouped)]
        seconds = iter(_price([one for place in alike for one in products[place]], wide, grouped, setting))
        for place in alike:
            found[place] = [next(seconds) for _ in products[place]]
    return [_by_pass(op, seconds, setting) for op, seconds in zip(gemms, found, strict=True)]


def _products(op: Gemm, setting: Setting) -> list[_Product]:
    """Those of an op's forward, of its input's gradient and, unless that has none, of its other operand's.

    A weight gradient's product adds to the fp32 sum of the micro-batches, which it reads and writes. Where a pass of
    its own does so, or every micro-batch is reduced, it writes a 16-bit tensor.
    """
    width = setting.activation_bytes
    both = [_Product(op.m, op.n, op.k, op.batch, width), _Product(op.m, op.k, op.n, op.batch, width)]
    if op.trains and setting.model.trains != "full":
        return both
    adds = op.trains and not _accumulation_bytes(setting) and not setting.runtime.state.reduces_every_microbatch
    return [*both, _Product(op.k, op.n, op.m, op.batch, 2.0 * 4.0 if adds else width)]


def _by_pass(op: Gemm, seconds: Sequence[Column], setting: Setting) -> tuple[Column, Column, Column]:
    """What the products of ``op`` come to by pass; an accumulation of its own moves ``accumulation_bytes`` per
    weight."""
    forward_s, input_grad_s, *other_s = seconds
    if not op.trains:
        return forward_s, input_grad_s + other_s[0], np.zeros_like(forward_s)
    if not other_s:
        return forward_s, input_grad_s, np.zeros_like(forward_s)
    device = setting.device
    added_bytes = op.k * op.n * op.batch * _accumulation_bytes(setting)
    return forward_s, input_grad_s, other_s[0] + added_bytes / (device.memory_bytes_per_s * device.memory_fraction)


def _price(products: Sequence[_Product], wide: bool, grouped: bool, setting: Setting) -> Column:
    """[products, u] seconds of products of one precision."""
    device, kernels = setting.device, setting.runtime.kernels
    precision = setting.wide_precision if wide else setting.workload.precision
    shape = (len(products), np.size(products[0].m))
    columns = np.empty((len(_Product._fields), shape[0] * shape[1]))
    for at, one in enumerate(products):
        for column, value in zip(columns.reshape(-1, *shape), one, strict=True):
            column[at] = value
    rows, place = distinct_columns(columns)
    m, n, k, batch, out_bytes = columns[:, rows]
    if grouped:
        issue_s = 0.0 if kernels.cuda_graphs else kernels.grouped_issue_s
        seconds = estimate_grouped_gemm_s(device, m, n, k, precision, batch, out_bytes, issue_s=issue_s)
    else:
        seconds = estimate_gemm_s(device, m, n, k, precision, out_bytes, batch)
    return (seconds / (device.step_fraction * setting.runtime.product_rate))[place].reshape(shape)


def _accumulation_bytes(setting: Setting) -> float:
    """Bytes per weight that a pass of its own moves to add a micro-batch's gradient to the sum."""
    kernels, wide = setting.runtime.kernels, setting.workload.grad_dtype == "fp32"
    if wide and setting.activation_bytes < 4.0 and kernels.wide_accumulation_bytes is not None:
        return kernels.wide_accumulation_bytes
    return kernels.accumulation_bytes
