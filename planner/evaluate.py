"""Price one placement exactly: its passes on the simulator's timeline, its memory rank by rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from costmodel.kept import KeptBytes
from costmodel.layer_table import PricedLayers, price_layers
from costmodel.layouts import Column, Layouts
from costmodel.price import Priced, price
from costmodel.schema.plan import Plan
from costmodel.schema.schedule import Schedule
from planner.kept import count_kept
from planner.mixed import estimate_edges, group_of_ranks, join_priced, join_times, price_groups
from planner.order import build_order, with_frozen, without_frozen
from planner.placement import Placement
from planner.problem import Problem
from planner.simulator import FrozenTimes, Simulation, StageTimes, simulate
from planner.vocabulary import vocabulary_times


@dataclass(frozen=True)
class Evaluated:
    """A placement with its price. ``step_time_s`` = (makespan + reductions and update) · jitter.

    ``by_group``: over unlike groups of nodes, the price as if all ranks lay in each of them, and ``homes`` the group of
    every rank; of ``priced`` the rank's own columns are joined. Both are empty where all nodes are alike.
    """

    problem: Problem
    placement: Placement
    schedule: Schedule
    times: StageTimes
    priced: Priced
    simulation: Simulation
    by_group: tuple[Priced, ...] = ()
    homes: tuple[int, ...] = ()

    def of_rank(self, rank: int) -> Priced:
        """The price in the group of nodes in which a pipeline rank lies."""
        return self.by_group[self.homes[rank]] if self.by_group else self.priced

    @cached_property
    def capacity_bytes(self) -> Column:
        """[pp] memory of every rank's device."""
        devices = [self.of_rank(rank).layers.setting.device for rank in range(self.placement.layout.pp)]
        return np.array([device.memory_bytes for device in devices])

    @cached_property
    def fullest_rank(self) -> int:
        """The rank that fills most of its device."""
        return int((self.priced.memory.device[0] / self.capacity_bytes).argmax())

    def without_sends(self) -> StageTimes:
        """The stages' times as if sends took none."""
        if not self.by_group:
            return stage_times(self.priced.layers, self.placement, self.problem, sends=False)
        still = [stage_times(one.layers, self.placement, self.problem, sends=False) for one in self.by_group]
        return join_times(still, self.homes, None)

    @cached_property
    def own_device_makespan_s(self) -> float:
        """Seconds of the passes if every rank had a device of its own."""
        if cores_per_pipeline(self.problem, self.placement) is None:
            return self.simulation.makespan_s
        return simulate(self.schedule, self.times).makespan_s

    @cached_property
    def instant_makespan_s(self) -> float:
        """The same without frozen parts if sends, too, took no time."""
        return simulate(without_frozen(self.schedule), self.without_sends()).makespan_s

    @cached_property
    def slowest_rank(self) -> int:
        """The rank whose reductions and update end the step."""
        return int(self.priced.extras.exposed_s[0].argmax())

    @cached_property
    def step_time_s(self) -> float:
        layers = self.priced.layers
        last = float(self.priced.extras.exposed_s[0, self.slowest_rank]) * float(layers.contention[0])
        return (self.simulation.makespan_s + last) * (1.0 + float(layers.jitter[0]))

    @property
    def fits_probability(self) -> float:
        return float(self.priced.fits_probability[0])


def cores_per_pipeline(problem: Problem, placement: Placement) -> float | None:
    """Cores that one pipeline's ranks share when all ranks sit on one host; None where each has a device."""
    cores = problem.setting.shared_cores
    layout = placement.layout
    if cores is None or cores >= layout.world_size:
        return None
    return cores * layout.pp / layout.world_size


def evaluate(
    problem: Problem,
    placement: Placement,
    schedule: Schedule | None = None,
    layers: PricedLayers | Sequence[PricedLayers] | None = None,
) -> Evaluated:
    """Price, schedule and simulate. ``layers``: the one row's layer table when it is at hand already, or over unlike
    groups of nodes its tables, one for each.

    ``schedule``: a plan's own order of passes; by default the named schedule is built.
    Raises InvalidSpec where the schedule cannot do these sizes, or a stage would straddle two groups.
    """
    if problem.others:
        tables = price_groups(problem, _row(placement)) if not isinstance(layers, Sequence) else layers
        return _evaluate_mixed(problem, placement, schedule, tables)
    assert not isinstance(layers, Sequence)
    if layers is None:
        layers = price_layers(problem.setting, problem.network, _row(placement))
    times = stage_times(layers, placement, problem)
    if schedule is None:
        schedule = with_frozen(build_order(layers), times)
    kept = kept_bytes(layers, placement, problem, schedule)
    priced = price(layers, placement.assignment(problem.kinds, problem.num_kinds, layers.costs.num_policies), kept)
    simulation = simulate(schedule, times, cores_per_pipeline(problem, placement))
    return Evaluated(problem, placement, schedule, times, priced, simulation)


def evaluate_plan(plan: Plan) -> Evaluated:
    """A plan's own placement and order of passes. Raises InvalidSpec for what the cost model does not price."""
    return evaluate(Problem.from_plan(plan), Placement.from_plan(plan), plan.schedule())


def _evaluate_mixed(
    problem: Problem, placement: Placement, schedule: Schedule | None, tables: Sequence[PricedLayers]
) -> Evaluated:
    homes = group_of_ranks(problem.cluster, placement.layout)
    edges = estimate_edges(tables, homes)
    schedule = build_order(tables[0]) if schedule is None else schedule
    assignment = placement.assignment(problem.kinds, problem.num_kinds)
    by_group = tuple(price(layers, assignment, kept_bytes(layers, placement, problem, schedule)) for layers in tables)
    still = [stage_times(layers, placement, problem, sends=False) for layers in tables]
    times = join_times(still, homes, edges)
    priced = join_priced(by_group, homes, edges)
    return Evaluated(problem, placement, schedule, times, priced, simulate(schedule, times), by_group, homes)


def _row(placement: Placement) -> Layouts:
    return Layouts.from_rows([(placement.layout, placement.schedule)])


def stage_times(layers: PricedLayers, placement: Placement, problem: Problem, sends: bool = True) -> StageTimes:
    """Seconds of every virtual stage's passes for one micro-batch: its layers', the ends' where they live, and what
    the rank waits for its sends; of frozen parts in the bubbles each piece. ``sends=False``: as if sends took no time.
    """
    kinds, costs, row = problem.num_kinds, layers.costs, layers.index[0]
    counts = placement.stage_counts(problem.kinds, kinds, costs.num_policies)
    per_kind = counts.sum(axis=2)
    backward = costs.backward_s[row].sum(axis=-1)
    extra = costs.extra_s[row]

    ends = not placement.layout.vocab_parallel
    forward_s, weight_s, backward_s = (
        _with_ends(per_kind, column, ends) for column in (layers.forward[0], layers.weight_grad[0], backward)
    )
    recompute_s = np.einsum("skp,kp->s", counts, extra[:kinds])
    homes = np.array(placement.stages.stage_to_rank)
    crosses = homes[: len(counts)][1:] != homes[: len(counts)][:-1]
    if sends:
        forward_s[:-1] += layers.busy_s[0] * crosses
        backward_s[1:] += layers.busy_s[0] * crosses
    copies = placement.stages.copies
    return StageTimes(
        forward_s=np.tile(forward_s, copies),
        input_grad_s=np.tile(np.maximum(backward_s - weight_s, 0.0), copies),
        weight_grad_s=np.tile(weight_s, copies),
        recompute_s=np.tile(recompute_s, copies),
        edge_s=float(layers.edge_s[0]) if sends else 0.0,
        vocab=None if ends else vocabulary_times(layers, sends),
        frozen=FrozenTimes(layers.frozen.piece_s[0]) if placement.layout.frozen_fill else None,
    )


@dataclass(frozen=True)
class KeptByStage:
    """Bytes that one micro-batch keeps on each stage of one copy, [stages]: activations, what waits for the weight
    gradient beside them, logits, activations on the host and on the node's drives.
    """

    activations: Column
    pending: Column
    logits: Column
    host: Column
    nvme: Column


def kept_by_stage(layers: PricedLayers, placement: Placement, problem: Problem) -> KeptByStage:
    kinds, costs, row = problem.num_kinds, layers.costs, layers.index[0]
    counts = placement.stage_counts(problem.kinds, kinds, costs.num_policies)
    saved, pending = costs.saved_bytes[row], costs.pending_bytes[row]

    def of_layers(column: Column) -> Column:
        return np.asarray(np.einsum("skp,kp->s", counts, column[:kinds]))

    activations, waiting, logits = of_layers(saved), of_layers(pending), np.zeros(len(counts))
    activations[: layers.layouts.vocab_over[0]] += saved[kinds, 0]
    waiting[-1] += pending[kinds + 1, 0]
    logits[-1] = saved[kinds + 1, 0]
    host, nvme = of_layers(costs.host_bytes[row]), of_layers(costs.nvme_bytes[row])
    return KeptByStage(activations, waiting, logits, host, nvme)


def kept_bytes(layers: PricedLayers, placement: Placement, problem: Problem, schedule: Schedule) -> KeptBytes:
    """What the schedule's own order keeps on every rank at its worst moment: activations and what waits for the weight
    gradient when they are most together, which need not be when either is."""
    kept, one = count_kept(schedule), kept_by_stage(layers, placement, problem)

    def per_stage(weights: Column) -> Column:
        return np.tile(weights, schedule.copies)

    activations, pending = kept.peak_at_once(per_stage(one.activations), per_stage(one.pending))
    return KeptBytes(
        activations=activations[None],
        pending=pending[None],
        logits=kept.peak_logits(per_stage(one.logits))[None],
        host=kept.peak("alive", per_stage(one.host))[None],
        nvme=kept.peak("alive", per_stage(one.nvme))[None],
    )


def _with_ends(per_kind: Column, column: Column, ends: bool) -> Column:
    """[stages] of one copy: layers times [K + 2], with ``ends`` the embedding on the first, the head on the last."""
    kinds = per_kind.shape[1]
    total = np.asarray(per_kind @ column[:kinds])
    total[0] += column[kinds] * ends
    total[-1] += column[kinds + 1] * ends
    return total
