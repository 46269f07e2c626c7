"""The optimizer's update: how long it takes on the device and on the host, and which share belongs on which.

The last question is a linear program, for one rank and one step:

(1) variables   y in [0, x]    share that is kept on the host and updated on the device; of state x is on the host
                T >= 0         seconds after the backward
(2) objective   minimise T
(3) host        T >= (h + (1 - o) · g) · (x - y),  T >= (h + g) · (x - y) - B
(4) device      T >= U · (1 - x + y)
(5) link        T >= s · y

with, for all of a rank's parameters, g the seconds in which gradients come to the host, of which the share o may hide
behind the backward's B seconds; h those in which it updates, and parameters go back meanwhile; U those of the device's
update; s those in which master weights and moments cross the link one way. Runtimes that cannot stream state have
y = 0. What the search makes of x is in ``planner/search/offload.py``. Leaves out: streamed state and gradients that
wait for each other on the link; updates that run a step late.
Source: Maurya et al. 2024 (Deep Optimizer States), section 3; Ren et al. 2021 (ZeRO-Offload), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from costmodel.columns import take_rows
from costmodel.layouts import Column, Layouts
from costmodel.moments import estimate_projection_s, moment_bytes
from costmodel.ops import Setting
from costmodel.parameters import trainable_share
from costmodel.schema.workload import DTYPE_BYTES
from costmodel.shards import shard_groups
from costmodel.state import LocalParams


@dataclass(frozen=True)
class Update:
    """[n, S] seconds: on the device; on the host in all, and beyond what backward and the device's update hide.

    ``streamed``: the share of all state that lives on the host and is updated on the device.
    """

    device_s: Column
    host_total_s: Column
    host_exposed_s: Column
    streamed: Column


@dataclass(frozen=True)
class UpdateRates:
    """What the linear program takes, [n, S]: seconds for all parameters of a rank, as the module's top names them.

    ``hidden``: o, the largest share of the gradients' way to the host that hides.
    """

    host_s: Column
    grads_s: Column
    device_s: Column
    stream_s: Column
    hidden: float


def estimate_update(setting: Setting, rates: UpdateRates, share: Column, backward_s: Column) -> Update:
    """``share`` [n, 1] on the host, the rest on the device: at the same time where the runtime can keep any share
    there, otherwise one after the other. Only rows that keep some there are priced for it."""
    rules = setting.runtime
    fixed_s = rules.kernels.host_s_per_step
    device_s, nothing = rates.device_s + fixed_s, np.zeros_like(rates.device_s)
    some = np.flatnonzero(share)
    if not len(some):
        return Update(device_s, nothing, nothing, nothing)
    if len(some) < len(share):
        whole = Update(device_s, nothing, nothing.copy(), nothing.copy())
        part = estimate_update(setting, take_rows(rates, some), share[some], backward_s[some])
        for one in fields(Update):
            getattr(whole, one.name)[some] = getattr(part, one.name)
        return whole
    streamed = solve_streamed(rates, share, backward_s) if rules.streams_optimizer_state else nothing
    away = share - streamed
    on_device_s = rates.device_s * (1.0 - away)
    total_s = np.maximum((rates.host_s + rates.grads_s) * away, rates.stream_s * streamed)
    exposed_s = np.maximum(host_after_s(rates, away, backward_s), rates.stream_s * streamed)
    if rules.partial_optimizer_offload:
        exposed_s = np.maximum(exposed_s - on_device_s, 0.0)
    return Update(on_device_s + fixed_s, total_s, exposed_s, streamed)


def estimate_update_rates(setting: Setting, layouts: Layouts, params: LocalParams) -> UpdateRates:
    """A parameter's update reads its gradient twice (once for the norm), and reads and writes master and moments, and
    writes the low-precision copy: 8 + 2·(4 + moments) + 2 bytes, times ``optimizer_bytes_factor`` on a device. For the
    host the gradient crosses the link one way, and the parameter the other while more are updated.
    """
    workload, device, host = setting.workload, setting.device, setting.host
    dense, expert = shard_groups(setting, layouts)
    trains = trainable_share(setting.model)
    own = trains * (params.dense / dense.optimizer + params.expert / expert.optimizer)
    of_layers, of_ends = moment_bytes(workload, layouts)
    ends = trains * params.ends / dense.optimizer
    param_bytes, grad_bytes = DTYPE_BYTES[workload.param_dtype], DTYPE_BYTES[workload.grad_reduce_dtype]
    kept = (4.0 + of_layers) * own
    if of_ends is not of_layers:
        kept = kept + (of_ends - of_layers) * ends
    moved = (8.0 + param_bytes) * own + 2.0 * kept
    on_device = moved * setting.runtime.kernels.optimizer_bytes_factor
    device_s = on_device / (device.memory_bytes_per_s * device.memory_fraction)
    host_rate = host.memory_bytes_per_s / setting.devices_per_node
    link = setting.host_link_bytes_per_s
    return UpdateRates(
        host_s=np.maximum(moved / host_rate, param_bytes * own / link),
        grads_s=grad_bytes * own / link,
        device_s=device_s + estimate_projection_s(setting, layouts, own - ends),
        stream_s=kept / link,
        hidden=setting.overlap.optimizer_offload,
    )


def host_after_s(rates: UpdateRates, away: Column, backward_s: Column) -> Column:
    """[n, S] seconds after the backward in which the host updates the share ``away``: (3)."""
    grads_s = rates.grads_s * away
    return np.asarray(rates.host_s * away + grads_s - np.minimum(rates.hidden * grads_s, backward_s))


def solve_streamed(rates: UpdateRates, share: Column, backward_s: Column) -> Column:
    """[n, S] the y of the linear program in closed form, x = ``share``.

    What falls with y (3) meets what rises (4, 5) where the longest of all is shortest: at one of these crossings, or at
    an end.
    """
    falling = (
        (rates.host_s + (1.0 - rates.hidden) * rates.grads_s, 0.0),
        (rates.host_s + rates.grads_s, backward_s),
    )
    rising = ((rates.device_s, rates.device_s * (1.0 - share)), (rates.stream_s, 0.0))

    def after_s(streamed: Column) -> Column:
        on_device_s = rates.device_s * (1.0 - share + streamed)
        return np.maximum(
            np.maximum(host_after_s(rates, share - streamed, backward_s), on_device_s), rates.stream_s * streamed
        )

    best = np.zeros(np.broadcast_shapes(rates.device_s.shape, share.shape))
    least = after_s(best)
    crossings = [
        np.clip((slope * share - less - start) / np.maximum(slope + rise, 1e-30), 0.0, share)
        for slope, less in falling
        for rise, start in rising
    ]
    for streamed in (np.broadcast_to(share, best.shape), *crossings):
        needed = after_s(streamed)
        best, least = np.where(needed < least, streamed, best), np.minimum(needed, least)
    return best
