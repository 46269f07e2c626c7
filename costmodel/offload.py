"""Saved activations away from the device, or in fewer bits: what a copy exposes, what narrowing moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.layouts import POLICIES, Column
from costmodel.lowering.casts import is_narrow
from costmodel.ops import Lowered, Setting

OFFLOAD_BUFFERS = 2.0
"""Layers' worth of activations that wait while their copy is under way (double buffering): on the device, and in pinned
host memory on their way to a drive."""

INT8_BLOCK = 128
"""Elements that share one fp32 scale where saved activations are kept in 8 bits. Prior."""

INT8_BYTES = 1.0 + 4.0 / INT8_BLOCK

_NEVER_NARROW = frozenset({"log-sum-exp", "dropout mask", "router logits"})
"""Saved tensors that are small, or exact: statistics and masks."""

_OFFLOADS = np.array([policy.offload != "none" for policy in POLICIES])
_HIDES = np.array([policy.offload == "hidden" for policy in POLICIES])
_TO_NVME = np.array([policy.offload_to == "nvme" for policy in POLICIES])


@dataclass(frozen=True)
class Copies:
    """Of each policy, [u, P]: bytes away on the host and on a drive, and seconds beyond what compute hides."""

    host_bytes: Column
    nvme_bytes: Column
    exposed_s: Column

    @property
    def away_bytes(self) -> Column:
        return np.asarray(self.host_bytes + self.nvme_bytes)


def estimate_copies(held_bytes: Column, forward_s: Column, setting: Setting) -> Copies:
    """What leaves of ``held_bytes`` [u, P] under each policy, and what that costs.

    copy = bytes / rate, each way; hidden = overlap · forward, by the forward on the way out and by the backward, which
    is as long at least, on the way in. Of a policy that hides its copies the share min(1, hidden / held copy) leaves.
    exposed = 2 · max(copy - hidden, 0) + 2 · bytes / device memory's bandwidth, which the passes beside do without.
    A device's rate is the slower of its link and its share of the host's memory, or of the node's drives.
    Source: MEMO (Zhao et al. 2025), section 4.1, which picks the same share for a layer's largest tensors; SSDTrain
    (Wu et al. 2024), section III, for drives.
    """
    offloads, hides, to_nvme = (one[: setting.num_policies] for one in (_OFFLOADS, _HIDES, _TO_NVME))
    # On nodes without drives nobody may choose a policy that needs them; its column stays finite all the same.
    rate = np.where(to_nvme, max(setting.nvme_bytes_per_s, 1.0), setting.host_link_bytes_per_s)
    overlap = np.where(to_nvme, setting.overlap.nvme_offload, setting.overlap.activation_offload)
    hidden_s = overlap * forward_s[:, None]
    copied = held_bytes * offloads
    share = np.where(hides, np.minimum(1.0, hidden_s * rate / np.maximum(copied, 1.0)), 1.0)
    away = copied * share
    exposed = 2.0 * np.where(hides, 0.0, np.maximum(away / rate - hidden_s, 0.0)) + 2.0 * away / _memory_rate(setting)
    return Copies(np.where(to_nvme, 0.0, away), np.where(to_nvme, away, 0.0), exposed)


def estimate_copied_s(host_bytes: Column, nvme_bytes: Column, setting: Setting) -> Column:
    """Seconds that a layer's copies take from the device and from its memory, hidden or not: what leaves, there and
    back, over the rate to where it goes and once more over device memory's bandwidth.
    """
    away = host_bytes / setting.host_link_bytes_per_s + nvme_bytes / max(setting.nvme_bytes_per_s, 1.0)
    return np.asarray(2.0 * (away + (host_bytes + nvme_bytes) / _memory_rate(setting)))


@dataclass(frozen=True)
class Narrowed:
    """A layer's saved tensors in 8 bits: bytes saved less than before, seconds of the casts, and the largest tensor
    as it comes back, [u]."""

    spared_bytes: Column
    cast_s: Column
    widened_bytes: Column


def estimate_narrowed(lowered: Lowered, setting: Setting, like: Column) -> Narrowed:
    """Everything that a layer saves, every element in 1 byte and its share of a scale; ``like``: a column [u].

    cast = 2 · (width + narrow) bytes an element / memory bandwidth: read wide and written narrow in the forward, the
    reverse in the backward. Masks and statistics stay, and what the runtime keeps in few bits as it is.
    Source: Pan et al. 2021 (Mesa), section 3; Xi et al. 2024 (COAT), section 5.
    """
    width = setting.activation_bytes
    zero = np.zeros_like(like)
    already = setting.runtime.kernels.narrow_saves is not None and is_narrow(setting)
    wide = [one for one in lowered.saved if not (already and one.narrow) and one.name not in _NEVER_NARROW]
    sizes = [one.num_bytes + zero for one in wide]
    elements = sum(sizes, zero) / width
    moved = 2.0 * elements * (width + INT8_BYTES)
    largest = np.max([*sizes, zero], axis=0)
    return Narrowed(elements * (width - INT8_BYTES), moved / _memory_rate(setting), largest)


def _memory_rate(setting: Setting) -> float:
    return setting.device.memory_bytes_per_s * setting.device.memory_fraction
