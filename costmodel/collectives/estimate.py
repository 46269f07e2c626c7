"""Time of one collective: alpha-beta per network level, by the fastest algorithm and protocol."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from costmodel.collectives.network import Network, Placement
from costmodel.collectives.reductions import ring, switch_tree, tree
from costmodel.collectives.volumes import Collective, exchange_share
from costmodel.columns import largest
from costmodel.layouts import Column


def estimate_collective_s(
    network: Network,
    kind: Collective,
    num_bytes: ArrayLike,
    size: ArrayLike,
    stride: ArrayLike = 1,
    launch_s: float = 0.0,
    copies: float = 1.0,
    groups: tuple[int, int] = (1, 1),
) -> Column:
    """Seconds of one collective over groups of ``size`` ranks spaced ``stride`` apart, all groups at the same time.

    ``num_bytes``: all_reduce - the tensor; all_gather, reduce_scatter - the whole (unsharded) tensor; all_to_all -
    what one rank holds before it; p2p - the message. Zero where ``size`` is 1.

    ``launch_s`` + the largest ``setup_s`` of the crossed levels + the fastest way to do it:
    all_gather, reduce_scatter - a ring; all_reduce - a ring, a tree, or the switches as far as they add, each under
    the protocol that is fastest for its size (``reductions``). NCCL chooses from such a model of its own.
    all_to_all - the slowest level, each with the share of peers that lie across it; ``copies``: to how many members
    each item goes, where it crosses a level once for all of a unit beyond it, and ``groups``: (all, chosen) of equal
    groups of members, where an item goes to members of so many groups only (``volumes.exchange_share``).
    p2p - message / bandwidth of the outermost level between the pair + that level's ``p2p_latency_s``, setup included.

    Leaves out: congestion between groups on one switch, beyond ``oversubscription``; sizes at which a library's own
    choice is not the fastest.
    Source: Thakur et al. 2005 (ring, tree); NCCL's tuning model (NVIDIA/nccl, src/graph/tuning.cc), 2026-11.
    """
    return estimate_placed_s(network.place(size, stride), kind, num_bytes, launch_s, copies, groups)


def estimate_placed_s(
    place: Placement,
    kind: Collective,
    num_bytes: ArrayLike,
    launch_s: float = 0.0,
    copies: float = 1.0,
    groups: tuple[int, int] = (1, 1),
) -> Column:
    """``estimate_collective_s`` of groups whose place on the network is at hand."""
    num_bytes = np.asarray(num_bytes, np.float64)
    if kind == "p2p":
        time_s = _p2p_s(place, num_bytes)
    elif kind == "all_to_all":
        time_s = _all_to_all_s(place, num_bytes, copies, groups) + place.setup_s
    else:
        time_s = _reduction_s(place, kind, num_bytes) + place.setup_s
    return np.where(place.size > 1, time_s + launch_s, 0.0)


def _reduction_s(place: Placement, kind: Collective, num_bytes: Column) -> Column:
    network = place.network
    flagged = place.low_latency_protocols
    if kind != "all_reduce":
        return ring(place, 1.0).estimate_s(num_bytes, flagged)
    time_s = ring(place, 2.0).estimate_s(num_bytes, flagged)
    if len(network.names) > 1:  # within one level a chain takes the ring's steps and more bytes
        time_s = np.minimum(time_s, tree(place).estimate_s(num_bytes, flagged))
    if network.reduction_bytes_per_s.any():
        time_s = np.minimum(time_s, switch_tree(place).estimate_s(num_bytes))
    return time_s


def _all_to_all_s(place: Placement, num_bytes: Column, copies: float, groups: tuple[int, int]) -> Column:
    """The slowest level's bytes, and on every level a latency that grows with the root of its peers: sends overlap."""
    s_per_byte = largest(exchange_share(place, copies, groups) / place.device_bytes_per_s)
    alpha_s = np.sqrt(place.units - 1.0) @ place.network.latency_s
    return np.asarray(num_bytes * s_per_byte + alpha_s)


def _p2p_s(place: Placement, num_bytes: Column) -> Column:
    """The message crosses the outermost level that separates the pair."""
    network = place.network
    outermost = largest(np.where(place.crossed, np.arange(len(network.names)), 0.0)).astype(np.intp)
    rate = np.take_along_axis(place.device_bytes_per_s, outermost[..., None], axis=-1)[..., 0]
    return np.asarray(num_bytes / rate + network.p2p_latency_s[outermost])
