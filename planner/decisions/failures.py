"""How often things fail, what a checkpoint of a plan takes, and the goodput that follows."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from costmodel.layouts import Layouts
from costmodel.moments import moment_bytes
from costmodel.parameters import count_model, trainable_share
from costmodel.schema.errors import Infeasible, InvalidSpec
from costmodel.schema.plan import Plan
from costmodel.schema.training import Goodput
from costmodel.schema.workload import DTYPE_BYTES
from planner.decisions.goodput import estimate_best_interval_s, estimate_shares
from planner.placement import Placement

DEVICE_MTBF_S = 50_000 * 3600.0
"""419 unexpected interruptions of 16,384 H100 in 54 days are one in 50,700 hours of a device, everything around it
included. Source: Llama Team 2024, "The Llama 3 Herd of Models", section 3.3.4."""

STORAGE_BYTES_PER_S_PER_DEVICE = 2e12 / 16_384
"""2 TB/s sustained of the storage behind 16,384 H100. Source: the same, section 3.3.1."""

RESTART_S = 600.0
"""Noticing, replacing the node, starting the processes: no source, an assumption that every report repeats."""

WORTH_SAYING = 256
"""From so many devices on, failures are part of the answer even where nobody asked."""

NO_PROGRESS = 1e-3
"""A job that spends less of its time on progress than this never ends."""


@dataclass(frozen=True)
class Reliability:
    """What was said about failures and checkpoints; None: the default, or for ``interval_s`` the best.

    ``storage_bytes_per_s``: what storage takes from all devices together.
    """

    device_mtbf_s: float | None = None
    storage_bytes_per_s: float | None = None
    interval_s: float | None = None
    restart_s: float | None = None
    asynchronous: bool = False

    @property
    def given(self) -> bool:
        return self != Reliability()


def estimate_checkpoint_bytes(plan: Plan) -> float:
    """What a run must save to go on: master weights, and the optimizer's moments in their format, of what trains.

    12 bytes per parameter under AdamW with fp32 master weights and moments. Leaves out: frozen weights, which are in
    the model's own files, and the data loader's place.
    """
    workload, model = plan.workload, count_model(plan.model)
    placement = Placement.from_plan(plan)
    layouts = Layouts.from_rows([(placement.layout, placement.schedule)])
    of_layers, of_ends = (float(np.max(each)) for each in moment_bytes(workload, layouts))
    master = 4.0 if workload.master_dtype == "fp32" else DTYPE_BYTES[workload.param_dtype]
    total, ends = model.total + model.mtp, model.embedding + model.head
    return trainable_share(plan.model) * (total * master + (total - ends) * of_layers + ends * of_ends)


def estimate_goodput(plan: Plan, reliability: Reliability) -> Goodput:
    """Checkpoint times from bytes and bandwidth, the interval given or the best in whole steps, and the shares of time.

    A synchronous checkpoint stalls training until it is written; an asynchronous one until its device's part is on the
    host. Restarting takes ``restart_s`` and reading the checkpoint back at the speed of writing it.
    Raises InvalidSpec for an asynchronous checkpoint that takes longer than the interval given; Infeasible where
    failures leave no time to make progress.
    """
    devices = plan.cluster.num_devices
    device_mtbf_s = reliability.device_mtbf_s or DEVICE_MTBF_S
    mtbf_s = device_mtbf_s / devices
    storage = reliability.storage_bytes_per_s or STORAGE_BYTES_PER_S_PER_DEVICE * devices
    saved = estimate_checkpoint_bytes(plan)
    write_s = saved / storage
    link = plan.cluster.groups[0].host.copy_bytes_per_s
    stall_s = saved / devices / link if reliability.asynchronous else write_s
    after_s = write_s if reliability.asynchronous else 0.0
    restart_s = (RESTART_S if reliability.restart_s is None else reliability.restart_s) + write_s
    best_s = estimate_best_interval_s(stall_s, mtbf_s, after_s)
    interval_s = reliability.interval_s or _whole_steps(plan, best_s, after_s)
    if interval_s + stall_s < after_s * (1.0 - 1e-9):
        raise InvalidSpec(
            f"--checkpoint-interval {interval_s:.0f}s: writing a checkpoint takes {after_s:.0f} s in the background",
            "give a longer interval or more --checkpoint-bandwidth",
        )
    shares = estimate_shares(interval_s, stall_s, mtbf_s, restart_s, after_s)
    if shares.progress < NO_PROGRESS:
        raise Infeasible(
            f"{devices} {plan.cluster.device} fail every {mtbf_s:.0f} s on average, too often for checkpoints that"
            f" take {write_s:.0f} s and restarts of {restart_s:.0f} s",
            hint="fewer GPUs, more --checkpoint-bandwidth, or a larger --mtbf",
        )
    return Goodput(
        share=shares.progress,
        checkpoint_share=shares.checkpoint,
        lost_share=shares.lost,
        restart_share=shares.restart,
        device_mtbf_s=device_mtbf_s,
        mtbf_s=mtbf_s,
        checkpoint_bytes=saved,
        checkpoint_stall_s=stall_s,
        checkpoint_write_s=write_s,
        restart_s=restart_s,
        interval_s=interval_s,
        asynchronous=reliability.asynchronous,
        assumptions=_assumed(reliability),
    )


def _whole_steps(plan: Plan, best_s: float, least_s: float) -> float:
    """Checkpoints come between steps: the nearest number of them, at least one, and so many that ``least_s`` pass."""
    step_s = plan.prediction.step_time_s.mean
    return step_s * max(round(best_s / step_s), ceil(least_s / step_s), 1)


def _assumed(reliability: Reliability) -> tuple[str, ...]:
    """A sentence for everything that was not said."""
    said = []
    if reliability.device_mtbf_s is None:
        said.append(
            f"A GPU, with all that serves it, interrupts the job once in {DEVICE_MTBF_S / 3600:,.0f} hours, as reported"
            " for Llama 3 on 16,384 H100 (--mtbf)."
        )
    if reliability.storage_bytes_per_s is None:
        said.append(
            f"Storage takes {STORAGE_BYTES_PER_S_PER_DEVICE / 1e6:.0f} MB/s from each GPU, Llama 3's 2 TB/s for 16,384"
            " (--checkpoint-bandwidth)."
        )
    if reliability.restart_s is None:
        said.append(
            f"A restart takes {RESTART_S / 60:.0f} minutes and reading the checkpoint back, an assumption"
            " (--restart-time)."
        )
    return tuple(said)
