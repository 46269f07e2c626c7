"""Simulated traces and the terminal drawing."""

from __future__ import annotations

import json
from itertools import pairwise
from random import Random

import pytest
from random_schedules import random_schedule, random_times
from rich.text import Text

from costmodel.schema.schedule import PassKind, Schedule
from costmodel.schema.trace import Trace
from planner.schedules import build_schedule
from planner.schedules.report import rank_times
from planner.simulator import Simulation, StageTimes, simulate
from planner.simulator.drawing import draw


def _simulation(name: str = "zb-h1", pp: int = 4, m: int = 8, vpp: int = 1, comm: float = 0.25) -> Simulation:
    schedule = build_schedule(name, pp, m, vpp)
    return simulate(schedule, rank_times(schedule, 1, 1.5, 0.5, comm))


@pytest.mark.parametrize("comm", [0.0, 0.25, 4.0])
def test_lanes_hold_one_thing_at_a_time(comm: float) -> None:
    trace = _simulation(comm=comm).trace()
    lanes: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for event in trace.events:
        lanes.setdefault((event.rank, event.lane), []).append((event.start_s, event.start_s + event.duration_s))
    for spans in lanes.values():
        assert all(earlier[1] <= later[0] + 1e-9 for earlier, later in pairwise(sorted(spans)))
    assert {lane for _, lane in lanes} >= ({"compute", "send"} if comm else {"compute"})


def test_trace_has_every_pass_and_every_send() -> None:
    simulation = _simulation()
    trace = simulation.trace()
    compute = [event for event in trace.events if event.lane == "compute"]
    sends = [event for event in trace.events if event.lane != "compute"]
    assert trace.origin == "simulated"
    assert len(compute) == 4 * 8 * 3
    assert len(sends) == 2 * 3 * 8
    assert sum(event.duration_s for event in compute) == pytest.approx(simulation.busy_s.sum())
    assert max(event.start_s + event.duration_s for event in compute) == pytest.approx(simulation.makespan_s)
    assert {event.duration_s for event in sends} == {0.25}
    first = next(event for event in sends if event.name == "0F0 to rank 1")
    assert (first.rank, first.start_s) == (0, pytest.approx(1))


def test_sends_end_before_what_they_feed_starts() -> None:
    trace = _simulation("interleaved-1f1b", 2, 4, 2, 0.75).trace()
    events = {(event.rank, event.name): event for event in trace.events}
    send, forward = events[1, "1F2 to rank 0"], events[0, "2F2"]
    assert send.start_s + send.duration_s <= forward.start_s + 1e-9


def test_chrome_form_and_names() -> None:
    trace = _simulation(m=2).trace(name=lambda step: f"layer {step.stage}")
    chrome = json.loads(json.dumps(trace.to_chrome()))
    spans = [event for event in chrome["traceEvents"] if event["ph"] == "X"]
    assert len(spans) == len(trace.events)
    assert spans[0] == {
        "ph": "X", "pid": 0, "tid": 1, "name": "layer 0", "cat": "compute", "ts": 0, "dur": 1e6,
    }  # fmt: skip
    assert Trace.load_json(trace.model_dump_json(), "trace") == trace


def test_chrome_form_numbers_and_names_its_lanes() -> None:
    """Viewers take processes and threads as whole numbers; the first lane of every rank is its compute."""
    events = _simulation("zeropp", 4, 8, 2).trace().to_chrome()["traceEvents"]
    lanes = {event["tid"]: (event["pid"], event["cat"]) for event in events if event["ph"] == "X"}
    names: dict[str, dict[int, tuple[int, str]]] = {"process_name": {}, "thread_name": {}}
    for event in events:
        if event["ph"] == "M":
            names[event["name"]][event["tid"]] = event["pid"], event["args"]["name"]
    assert names["thread_name"] == lanes
    assert names["process_name"] == {tid: (rank, f"rank {rank}") for tid, (rank, _) in lanes.items()}
    assert all(isinstance(number, int) for event in events for number in (event["pid"], event["tid"]))
    assert {lane for _, lane in lanes.values()} == {"compute", "communication", "send"}
    for rank in range(4):
        assert min((tid, lane) for tid, (home, lane) in lanes.items() if home == rank)[1] == "compute"


def test_drawing_by_hand() -> None:
    """Two ranks, two micro-batches, F 1, B 2: makespan 9, four columns a unit."""
    schedule = build_schedule("1f1b", 2, 2)
    drawn = draw(simulate(schedule, rank_times(schedule, 1, 1, 1, 0)), width=7 + 36)
    assert drawn.splitlines() == [
        "rank 0 F0──F1──········B0──────····B1──────"[:43],
        "rank 1 ····F0──B0──────F1──B1──────········"[:43],
        "       F forward, B backward; bubble 33.3%, · idle",
    ]


@pytest.mark.parametrize("width", [10, 60, 133])
@pytest.mark.parametrize(("name", "vpp"), [("zb-h1", 1), ("interleaved-1f1b", 2), ("gpipe", 1)])
def test_rows_are_as_wide_as_asked_and_markup_adds_only_colour(name: str, vpp: int, width: int) -> None:
    simulation = _simulation(name, 4, 8, vpp)
    plain, marked = draw(simulation, width), draw(simulation, width, markup=True)
    rows, legend = plain.splitlines()[:4], plain.splitlines()[4:]
    assert {len(row) for row in rows} == {max(width, 8)}
    assert legend
    assert max(map(len, legend)) <= max(width, 60)
    assert Text.from_markup(marked).plain == plain
    assert "[blue]" in marked


def test_wide_drawing_shows_every_pass() -> None:
    simulation = _simulation("zb-h1", 3, 5)
    rows = draw(simulation, 1000).splitlines()[:-1]
    for rank, row in enumerate(rows):
        labels = [block for block in row.removeprefix(f"rank {rank} ").replace("·", "─").split("─") if block]
        assert labels == [f"{step.kind}{step.microbatch}" for step in simulation.schedule.orders[rank]]
        assert sum(label.startswith(PassKind.FORWARD) for label in labels) == 5


def _every_kind() -> Simulation:
    random = Random(8)
    schedule = next(
        schedule
        for schedule in (random_schedule(random) for _ in range(1000))
        if {PassKind.UNSHARD, PassKind.REDUCE_GRAD, PassKind.VOCAB_FORWARD, PassKind.FROZEN_FORWARD} <= schedule.kinds
    )
    return simulate(schedule, random_times(random, schedule, wires=False))


def test_trace_of_every_kind() -> None:
    """Every pass once on its rank's lane; a collective on every rank, once for each micro-batch."""
    simulation = _every_kind()
    schedule = simulation.schedule
    events = simulation.trace().events
    for rank, order in enumerate(schedule.orders):
        beside = (PassKind.UNSHARD, PassKind.REDUCE_GRAD)
        computes = [str(step) for step in order if step.kind not in (*beside, PassKind.RESHARD)]
        transfers = [str(step) for step in order if step.kind in beside]
        assert [event.name for event in events if (event.rank, event.lane) == (rank, "compute")] == computes
        assert [event.name for event in events if (event.rank, event.lane) == (rank, "communication")] == transfers
        meetings = [event for event in events if (event.rank, event.lane) == (rank, "collective statistics")]
        assert len(meetings) == schedule.num_microbatches
        for event in meetings:
            step = f"{rank}VOCAB_F{event.name.removeprefix('statistics ')}"
            part = next(other for other in events if other.name == step)
            assert part.start_s + part.duration_s <= event.start_s + 1e-9


def test_trace_of_transfers_when_messages_occupy_links() -> None:
    random = Random(3)
    for _ in range(20):
        schedule = random_schedule(random)
        trace = simulate(schedule, random_times(random, schedule, wires=True)).trace()
        lanes: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for event in trace.events:
            lanes.setdefault((event.rank, event.lane), []).append((event.start_s, event.start_s + event.duration_s))
        for spans in lanes.values():
            assert all(earlier[1] <= later[0] + 1e-9 for earlier, later in pairwise(sorted(spans)))


def test_drawing_of_every_kind() -> None:
    simulation = _every_kind()
    drawn = draw(simulation, 2000, transfers=True)
    rows = [row for row in drawn.splitlines() if "bubble" not in row]
    (legend,) = (row for row in drawn.splitlines() if "bubble" in row)
    letters = {"B": "backward", "S": "output layer", "Z": "frozen forward", "U": "gather", "R": "reduce"}
    for letter, words in letters.items():
        assert f"{letter} {words}" in legend
        assert any(letter in row for row in rows)
    assert "gather" not in draw(simulation, 2000)
    assert max(map(len, draw(simulation, 60, transfers=True).splitlines())) <= 100
    assert Text.from_markup(draw(simulation, 200, markup=True, transfers=True)).plain == draw(
        simulation, 200, transfers=True
    )


def test_second_copy_has_small_letters_and_a_pair_both() -> None:
    order = {"0": "0F0 3F1 (0F2;3B1)OVERLAP_F_B 0B0 0B2", "1": "2F1 1F0 2B1 1B0 1F2 1B2"}
    schedule = Schedule.from_text("both ways", 3, (0, 1, 1, 0), order, copies=2)
    drawn = draw(simulate(schedule, StageTimes.uniform(4, 1.0, 1.0, 1.0)), 200)
    assert [label for label in ("F0─", "f1─", "F2+b1─", "B0─") if label not in drawn.splitlines()[0]] == []
    assert drawn.splitlines()[-1].strip().startswith("F forward, B backward, + both side by side, small letters")


def test_legend_names_what_is_drawn_and_fits() -> None:
    """Embeddings that take no time are not seen, output layers that do are."""
    schedule = build_schedule("1f1b-vocab-1", 3, 4)
    drawn = draw(simulate(schedule, rank_times(schedule, 1.0, 1.0, 1.0, 0.0, vocab=1.0)), width=60)
    assert max(map(len, drawn.splitlines())) <= 60
    assert "S output layer" in drawn
    assert "E embedding" not in drawn
