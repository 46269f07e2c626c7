"""How many bytes a collective moves, in all and by network level."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from costmodel.collectives.network import Network, Placement
from costmodel.layouts import Column

Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "p2p"]


def estimate_sent_bytes(kind: Collective, num_bytes: ArrayLike, size: ArrayLike) -> Column:
    """Bytes that one member sends: (n-1)/n of the tensor, twice for all_reduce; the message for p2p."""
    size = np.maximum(np.asarray(size, np.float64), 1.0)
    share = np.where(size > 1, 1.0, 0.0) if kind == "p2p" else (size - 1.0) / size
    return (2.0 if kind == "all_reduce" else 1.0) * share * np.asarray(num_bytes, np.float64)


def estimate_level_bytes(
    network: Network,
    kind: Collective,
    num_bytes: ArrayLike,
    size: ArrayLike,
    stride: ArrayLike,
    copies: float = 1.0,
    groups: tuple[int, int] = (1, 1),
) -> Column:
    """[n, L] bytes that one member sends across each level: round a ring by edges, to all peers by where they are.

    ``copies``, ``groups``: as ``estimate_collective_s`` has them.
    """
    return estimate_placed_bytes(network.place(size, stride), kind, num_bytes, copies, groups)


def estimate_placed_bytes(
    place: Placement,
    kind: Collective,
    num_bytes: ArrayLike,
    copies: float = 1.0,
    groups: tuple[int, int] = (1, 1),
) -> Column:
    """``estimate_level_bytes`` of groups whose place on the network is at hand."""
    if kind == "all_to_all":
        return np.asarray(num_bytes, np.float64)[..., None] * exchange_share(place, copies, groups)
    return estimate_sent_bytes(kind, num_bytes, place.size)[..., None] * place.traffic_share


def exchange_share(place: Placement, copies: float, groups: tuple[int, int] = (1, 1)) -> Column:
    """[n, L] of the bytes that a member holds before an all-to-all, the share that crosses each level.

    Plain: the peers across the level, (inside - below) / n. Where every item goes to ``copies`` members drawn at
    random and is forwarded level by level, outermost first: of the M = n / below units below a level it reaches
    D = M · (1 - (1 - 1/M)^copies), all but the one of U that it already is in cross: D / copies · (1 - 1/U).
    ``groups``: where an item's members all lie in k of G groups of members, M counts the units that those hold:
    M times the chance that k groups drawn one by one include one of the G/M that a unit holds, or that it is part of.
    Source: DeepEP (deepseek-ai/DeepEP, README): between nodes to the peer with the same index, then over NVLink;
    DeepSeek-V3 (2024), section 2.1.2 (node-limited routing).
    """
    size = np.maximum(place.size, 1.0)[..., None]
    if copies <= 1.0:
        return np.asarray((place.inside - place.below) / size)
    reached = count_reached(size / place.below, copies, groups)
    return np.asarray(np.where(place.crossed, reached / copies * (1.0 - 1.0 / place.units), 0.0))


def count_reached(units: Column, copies: float, groups: tuple[int, int] = (1, 1)) -> Column:
    """Distinct ones of so many equal units that an item's ``copies`` random members lie in; see ``exchange_share``."""
    count, chosen = groups
    held = np.maximum(count / units, 1.0)
    missed = np.ones_like(held)
    for drawn in range(chosen):
        missed = missed * np.maximum(1.0 - held / (count - drawn), 0.0)
    reachable = units * (1.0 - missed)
    return np.asarray(reachable * (1.0 - (1.0 - 1.0 / reachable) ** copies))
