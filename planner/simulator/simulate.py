"""Run a schedule against the times of its stages."""

from __future__ import annotations

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import Schedule
from planner.simulator.graph import PassGraph, graph_of
from planner.simulator.longest_path import finish_times_s, makespans_s
from planner.simulator.simulation import Simulation
from planner.simulator.times import Array, StageTimes


def simulate(schedule: Schedule, times: StageTimes, shared_cores: float | None = None) -> Simulation:
    """Start and end of every pass, each rank running its passes in order, each as soon as its inputs are there.

    ``times``: one row. ``shared_cores``: all ranks sit on one host with so many cores and share them equally among
    the busy; None: every rank has a device of its own.

    Leaves out: that a busy receiver's link holds its sender's link up; sends of joint products and broadcasts, which
    occupy no link; a slowdown of compute by what runs beside it.

    Raises InvalidSpec for a schedule that ``check_schedule`` refuses, times of other stages, ranks or pieces or of
    several rows, or cores that are not positive.
    """
    graph = _fitting_graph(schedule, times)
    if times.batch_shape:
        raise InvalidSpec(f"simulate takes one row of times, got a batch of {times.batch_shape}", "use simulate_many")
    if shared_cores is None:
        return Simulation(schedule, times, graph, finish_times_s(graph, times))
    if not shared_cores > 0:
        raise InvalidSpec(f"shared_cores = {shared_cores} must be more than 0")
    from planner.simulator.sharing import shared_times_s

    start_s, finish_s = shared_times_s(graph, times, shared_cores)
    return Simulation(schedule, times, graph, finish_s, start_s)


def simulate_many(schedule: Schedule, times: StageTimes) -> Array:
    """Makespan in seconds for each row of ``times``; shape ``times.batch_shape``. Equals ``simulate`` row by row.

    Raises InvalidSpec as ``simulate`` does.
    """
    return makespans_s(_fitting_graph(schedule, times), times)


def _fitting_graph(schedule: Schedule, times: StageTimes) -> PassGraph:
    if times.num_stages != schedule.num_stages:
        stages = f"{times.num_stages} stages, but schedule {schedule.name!r} has {schedule.num_stages}"
        raise InvalidSpec(f"times are of {stages}")
    graph = graph_of(schedule, times.link_levels)
    graph.durations.check(times, graph.columns.present, schedule.name)
    return graph
