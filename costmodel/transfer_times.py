"""Seconds of a layer's transfers: which ranks talk, how long, and how much of it hides behind compute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from costmodel.collectives import Collective, Placement, estimate_placed_s
from costmodel.layouts import Column
from costmodel.ops import Setting, Split, Transfer


def group_of(axis: str, split: Split) -> tuple[Column, Column]:
    """(size, stride) of a layer-level axis: tp innermost, then cp_ulysses, then cp_ring; etp, then ep."""
    ones = np.ones_like(split.tp)
    return {
        "tp": (split.tp, ones),
        "cp_ulysses": (split.cp_ulysses, split.tp),
        "cp_ring": (split.cp_ring, split.tp * split.cp_ulysses),
        "etp": (split.etp, ones),
        "ep": (split.ep, split.etp),
    }[axis]


def price_transfers(
    transfers: Sequence[Transfer], setting: Setting, places: dict[str, Placement]
) -> list[tuple[Column, Column]]:
    """[u] seconds of each transfer's collectives in (forward, backward), among the groups that lie at its axis' place;
    those of one kind are priced together."""
    launch_s = setting.device.kernel_launch_s
    sizes: dict[tuple[str, Collective, float, tuple[int, int]], list[Column]] = {}
    for one in transfers:
        for kind, num_bytes in (*one.forward, *one.backward):
            sizes.setdefault((one.axis, kind, one.copies, one.groups), []).append(num_bytes)
    priced = {}
    for (axis, kind, copies, groups), columns in sizes.items():
        num_bytes = np.stack(columns)
        seconds = estimate_placed_s(places[axis], kind, num_bytes, launch_s, copies, groups)
        priced[axis, kind, copies, groups] = iter(np.where(num_bytes > 0, seconds, 0.0))

    def of_pass(one: Transfer, collectives: tuple[tuple[Collective, Column], ...]) -> Column:
        place = places[one.axis]
        total = longest = np.zeros_like(place.size)
        for kind, _ in collectives:
            seconds = next(priced[one.axis, kind, one.copies, one.groups])
            total, longest = total + seconds, np.maximum(longest, seconds)
        return np.where(place.on_mesh, longest, total) if one.both_ways else total

    return [(of_pass(one, one.forward), of_pass(one, one.backward)) for one in transfers]


def expose(
    transfer: Transfer,
    total_s: Column,
    compute: dict[str, Column],
    opposite: dict[str, Column],
    setting: Setting,
    split: Split,
    backward: bool = False,
) -> Column:
    """What is left of a transfer's seconds beside compute - its own pass's, or the other's - and what hiding slows."""
    share, window_s = _cover(transfer, setting, split, compute, opposite, backward)
    hidden_s = np.minimum(total_s * share, window_s)
    return np.asarray(total_s - hidden_s + hidden_s * (setting.overlap.compute_slowdown - 1.0))


def _cover(
    transfer: Transfer,
    setting: Setting,
    split: Split,
    compute: dict[str, Column],
    opposite: dict[str, Column],
    backward: bool,
) -> tuple[Column | float, Column]:
    """The share of a transfer that may hide, and the seconds of compute it may hide behind.

    Tensor-parallel overlap chunks the gather and the scatter of sequence parallelism; an all-reduce cannot be chunked.
    What a dispatcher sends, between the shards of an expert as well, blocks unless the layer is paired with the
    opposite pass of a second micro-batch, behind whose compute it hides.
    What the backward of a column-parallel product sends can hide whole behind its gradients' products.
    Where a block reads the residual of two blocks before, whatever its predecessor sends travels beside all of it.
    Source: Zhang et al. 2025 (Ladder Residual).
    """
    overlap = setting.overlap
    if transfer.axis == "cp_ring":
        return overlap.context, compute["attention"]
    if transfer.axis == "tp" and overlap.ladder:
        return overlap.ladder, compute["gemm"] + compute["attention"] + compute["elementwise"]
    if transfer.axis == "tp":
        chunked = np.where(split.sequence_parallel > 0, overlap.tensor, 0.0)
        beside = overlap.tensor_backward if backward and transfer.beside_gradients else 0.0
        return np.maximum(chunked, beside), compute["gemm"]
    if transfer.axis in ("ep", "etp"):
        return overlap.expert, opposite["gemm"] + opposite["attention"] + opposite["elementwise"]
    return 0.0, compute["gemm"]
