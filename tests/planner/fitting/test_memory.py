"""A fit of memory finds the factors that made its rows, moves no time, and says how sure P(fits) may be."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from measured_rows import gpt_row, llama_row

from costmodel.catalog.fit import load_parameters
from costmodel.schema.fit import FitParameter
from planner.fitting.evidence import as_fit, parameters_of
from planner.fitting.fit import fit_tables
from planner.fitting.memory import MemoryEvidence, MemoryRuns, load_memory_runs
from planner.fitting.runs import load_runs
from planner.validation.catalog import Catalog
from planner.validation.deciles import fit_deciles
from planner.validation.pricing import price_rows
from planner.validation.row import MeasuredRow

PARAMETERS = (
    FitParameter(
        name="gaps", figures=("runtime.*.memory.fragmentation_excess",), quantity="memory", log_std=0.5, source="a test"
    ),
    FitParameter(
        name="sure", figures=("runtime.torchtitan.memory.model_std",), quantity="memory", log_std=0.5, source="a test"
    ),
    FitParameter(name="rate", figures=("device.h100.step_fraction",), log_std=0.2, source="a test"),
)
START = as_fit(PARAMETERS, np.zeros(3))
TRUTH = as_fit(PARAMETERS, np.log([1.5, 1.0, 1.0]))
SWEEP = tuple((micro, length) for micro in range(1, 7) for length in (6144, 8192, 10240, 12288))


def read_rows(source: str = "read") -> list[MeasuredRow]:
    """Rows whose reserved memory is the model's own under TRUTH."""
    rows = [
        llama_row(id=f"{source} {micro}", source=source, micro_batch=micro, global_batch=8 * micro)
        for micro in (1, 2, 3, 4)
    ]
    return [
        replace(row, mem_gib_peak=one.reserved_gib, mem_kind="reserved")
        for row, one in zip(rows, price_rows(rows, Catalog(TRUTH)), strict=True)
    ]


def sweep_rows() -> list[MeasuredRow]:
    """A sweep that runs into the limit where the model under TRUTH has it."""
    rows = [
        llama_row(id=f"{micro} {length}", source="sweep", micro_batch=micro, global_batch=8 * micro, seq_len=length)
        for micro, length in SWEEP
    ]
    return [
        replace(row, oom=(one.fits_probability or 0.0) < 0.5)
        for row, one in zip(rows, price_rows(rows, Catalog(TRUTH)), strict=True)
    ]


@pytest.fixture(scope="module")
def runs() -> MemoryRuns:
    return load_memory_runs(read_rows())


def test_the_factor_that_made_the_readings_is_found(runs: MemoryRuns) -> None:
    evidence = MemoryEvidence(runs, START)
    assert [one.name for one in evidence.parameters] == ["gaps", "sure"]
    found = evidence.solve()
    gaps, sure = found.fit.parameters
    assert gaps.factor == pytest.approx(1.5, rel=0.1)
    assert gaps.fitted_log_std < 0.4
    assert sure.factor < 0.8  # four readings without any error
    # The prior keeps a little of what was 6% before.
    assert found.log_figures == pytest.approx(runs.observed.logs, abs=0.02)


def test_outcomes_alone_move_the_model_towards_them() -> None:
    rows = sweep_rows()
    runs = load_memory_runs(rows)
    assert {-1, 1} == set(runs.observed.outcomes.tolist())
    evidence = MemoryEvidence(runs, START)
    before = runs.figures(Catalog(START))[0]
    found = evidence.solve()
    assert 1.05 < found.fit.parameters[0].factor < 2.0
    ran = runs.observed.outcomes > 0
    right = [((logs < runs.observed.logs) == ran).mean() for logs in (before, found.log_figures)]
    assert right[0] <= right[1]
    assert right[1] > 0.95


def test_a_source_without_failures_says_nothing_of_the_limit() -> None:
    assert not load_memory_runs([llama_row(oom=False)]).rows
    assert len(load_memory_runs([llama_row(oom=False), llama_row(oom=True, micro_batch=8, global_batch=64)]).rows) == 2


def test_a_source_left_out_is_predicted_by_the_others() -> None:
    tight = [replace(row, source="tight", mem_gib_peak=(row.mem_gib_peak or 0.0) * 0.9) for row in read_rows()]
    runs = load_memory_runs(read_rows() + tight)
    evidence = MemoryEvidence(runs, START)
    left = list(evidence.leave_out(evidence.solve(), [row.source for row in runs.rows]))
    assert [places.tolist() for places, _ in left] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    alone = left[1][1].log_figures[4:] - runs.observed.logs[4:]
    assert alone == pytest.approx(np.full(4, np.log(1 / 0.9)), abs=0.03)


def test_memory_and_time_have_no_parameter_in_common() -> None:
    """Every factor on memory leaves all step times alone, every factor on time all memory."""
    rows = [
        llama_row(step_time_s=1.0, mem_gib_peak=40.0),
        gpt_row(step_time_s=1.0, mem_gib_peak=40.0),
        llama_row(framework="InternEvo", gpu="A100-80GB-SXM", compile=True, step_time_s=1.0, mem_gib_peak=40.0),
        llama_row(framework="in-house", tp=2, dp=4, flash_attn=False, step_time_s=1.0, mem_gib_peak=40.0),
    ]
    times, memory = load_runs(rows), load_memory_runs(rows)
    assert len(times.rows) == len(memory.rows) == len(rows)
    parameters = load_parameters()
    on_memory = np.array([parameter.quantity == "memory" for parameter in parameters])
    factors = np.linspace(0.1, 0.3, len(parameters))
    nothing, of_memory, of_time = (
        Catalog(as_fit(parameters, np.where(moved, factors, 0.0)))
        for moved in (np.zeros_like(on_memory), on_memory, ~on_memory)
    )
    for batch in times.batches:
        assert batch.log_time(of_memory) == pytest.approx(batch.log_time(nothing), rel=1e-12)
        assert batch.log_time(of_time) != pytest.approx(batch.log_time(nothing), rel=1e-3)
    figures = memory.figures(nothing)
    for before, same, other in zip(figures, memory.figures(of_time), memory.figures(of_memory), strict=True):
        assert same == pytest.approx(before, rel=1e-12)
        assert other != pytest.approx(before, rel=1e-3)


def test_a_fit_holds_both_and_nothing_correlates_between_them(tmp_path: Path) -> None:
    names = ("id", "source", "model", "seq_len", "gpu", "gpus", "framework", "precision", "tp", "pp", "cp", "dp",
             "micro_batch", "global_batch", "recompute", "step_time_s", "mem_gib_peak", "mem_kind")  # fmt: skip
    rows = [replace(row, step_time_s=float(place)) for place, row in enumerate(read_rows(), start=2)]
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([[getattr(row, name) for name in names] for row in rows])
    fit = fit_tables([path], START)
    assert [one.name for one in fit.parameters] == ["rate", "gaps", "sure"]
    assert fit.parameters[1].factor == pytest.approx(1.5, rel=0.1)
    covariance = np.array(fit.covariance)
    assert (covariance[0, 1:] == 0).all()
    assert covariance[1, 1] > 0
    known, prior = parameters_of(fit, "memory")
    assert [one.name for one in known] == ["gaps", "sure"]
    assert np.exp(prior.mean[0]) == pytest.approx(fit.parameters[1].factor)


def test_deciles_count_every_row_once() -> None:
    stated = [0.0, 0.005, 0.05, 0.55, 0.58, 0.995, 1.0]
    deciles = fit_deciles(stated, [False, False, True, True, False, True, True])
    assert [one.rows for one in deciles] == [2, 1, 2, 2]
    assert [one.ran for one in deciles] == [0.0, 1.0, 0.5, 1.0]
    assert deciles[2].predicted == pytest.approx(0.565)
