"""Published layouts: their degrees obey the two equations (world = pp · dp · cp · tp; etp · ep · edp = world / pp), and
the runs of benchmarks/data/published.toml, priced as they were laid out, fit and take about as long as published.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from costmodel.layouts import Layouts
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from planner.predict import predict_plan
from planner.validation.published import JudgedRun, PublishedRun, judge_run, load_published, request_of

RUNS = load_published(Path(__file__).parents[2] / "benchmarks" / "data" / "published.toml")

# Narayanan et al. 2021, arXiv 2104.04473, table 1: devices, tp, pp, dp.
PTD_P = (
    (32, 1, 1, 32),
    (64, 2, 1, 32),
    (128, 4, 1, 32),
    (256, 8, 1, 32),
    (512, 8, 2, 32),
    (1024, 8, 4, 32),
    (1536, 8, 8, 24),
    (1920, 8, 16, 15),
    (2520, 8, 35, 9),
    (3072, 8, 64, 6),
)

# Llama 3 team 2024, arXiv 2407.21783, table 4: devices, tp, cp, pp, dp, sequence length.
LLAMA_3_405B = ((8192, 8, 1, 16, 64, 8192), (16384, 8, 1, 16, 128, 8192), (16384, 8, 16, 16, 8, 131072))

# name, devices, {degrees}, edp.
MIXTURES = (
    # DeepSeek-AI 2024, arXiv 2412.19437, section 3.2: 16-way pipeline, 64-way experts over 8 nodes, ZeRO-1.
    ("DeepSeek-V3", 2048, {"pp": 16, "ep": 64, "dp_shard": 128, "zero_stage": 1}, 2),
    # Megatron-Core, megatron/core/transformer/moe/README.md (2024): Mixtral 8x7B.
    ("Mixtral 8x7B", 64, {"tp": 1, "pp": 4, "vpp": 8, "ep": 8, "dp_shard": 16, "zero_stage": 1}, 2),
    # NVIDIA DGX Cloud Benchmarking recipes v25.05: Grok-1 with context parallelism, experts folded over tp, cp and dp.
    ("Grok-1", 512, {"tp": 4, "pp": 8, "vpp": 8, "cp_ring": 2, "ep": 8, "dp_shard": 8, "zero_stage": 1}, 8),
    # The same: DeepSeek-V3, whose experts span more ranks than data parallelism has.
    ("DeepSeek-V3 on H100", 512, {"tp": 2, "pp": 8, "ep": 64, "dp_shard": 32, "zero_stage": 1}, 1),
    # The same: Llama 4 Maverick, 128 experts over tp and dp.
    ("Llama 4 Maverick", 512, {"tp": 4, "ep": 128, "dp_shard": 128, "zero_stage": 1}, 4),
    # Megatron-Bridge performance summary 2025: Qwen3 235B.
    ("Qwen3 235B", 256, {"tp": 2, "pp": 8, "vpp": 4, "ep": 32, "dp_shard": 16, "zero_stage": 1}, 1),
)


@pytest.mark.parametrize(("devices", "tp", "pp", "dp"), PTD_P)
def test_ptd_p(devices: int, tp: int, pp: int, dp: int) -> None:
    assert_equations(Layout(tp=tp, pp=pp, dp_replicate=dp), devices)


@pytest.mark.parametrize(("devices", "tp", "cp", "pp", "dp", "seq_len"), LLAMA_3_405B)
def test_llama_3_405b(devices: int, tp: int, cp: int, pp: int, dp: int, seq_len: int) -> None:
    """16 M tokens a batch at each of the table's stages, one sequence a micro-batch."""
    layout = Layout(tp=tp, cp_ring=cp, pp=pp, dp_shard=dp, zero_stage=2, num_microbatches=16 * 2**20 // seq_len // dp)
    assert_equations(layout, devices)
    assert layout.dp * layout.num_microbatches * seq_len == 16 * 2**20


@pytest.mark.parametrize(("name", "devices", "degrees", "edp"), MIXTURES)
def test_mixtures(name: str, devices: int, degrees: dict[str, int], edp: int) -> None:
    layout = Layout(**degrees)
    assert_equations(layout, devices)
    assert layout.edp == edp


def assert_equations(layout: Layout, devices: int) -> None:
    """On the validated object and on its column alike."""
    columns = Layouts.from_rows([(layout, "1f1b")])
    for one in (layout, columns):
        assert one.world_size == devices
        assert layout.etp * layout.ep * one.edp == devices // layout.pp
    assert columns.row(0) == layout


@pytest.mark.parametrize(
    ("degrees", "names"),
    [
        ({"pp": 16, "ep": 48, "dp_shard": 128}, "ep 48"),
        ({"tp": 8, "etp": 3, "dp_shard": 4}, "etp 3"),
        ({"tp": 4, "ep": 128, "dp_shard": 16}, "ep 128"),
        ({"tp": 8, "dp_shard": 4, "edp": 4}, "edp 4"),
        ({"tp": 0}, "tp = 0"),
        ({"tp": 2.5}, "tp = 2.5"),
        ({"zero_stage": 4}, "zero_stage = 4"),
        ({"order": ("tp", "tp", "cp_ring", "dp_shard", "dp_replicate", "pp")}, "order"),
        ({"dp": 4}, "dp = 4"),
    ],
)
def test_broken_products_are_refused(degrees: dict[str, object], names: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        Layout.load(degrees, "layout")
    assert names in refused.value.message


@pytest.fixture(scope="module", params=[pytest.param(run, id=run.name) for run in RUNS])
def judged(request: pytest.FixtureRequest) -> JudgedRun:
    return judge_run(request.param)


def test_as_it_was_run(judged: JudgedRun) -> None:
    """It fits, and the published step time lies in the prediction's own 90% interval - but for the misses listed."""
    assert judged.plan.layout == judged.run.layout
    assert (judged.fits and judged.covered) == (not judged.run.miss), judged.ratio
    assert judged.ratio is not None
    assert judged.covered or 1.0 < judged.ratio < 1.3
    assert judged.plan.prediction.memory.fits_probability > 0.4


def test_asked_for(judged: JudgedRun) -> None:
    """Given all but what is recomputed, the search fits the layout with a margin, and at no great cost; where the run
    had that margin, it recomputes what the authors did. DeepSeek-V3's runtime has nothing leaner than what was run."""
    if judged.pinned is None:
        assert judged.run.model == "deepseek-v3"
        return
    assert judged.pinned.layout == judged.run.layout
    assert judged.pinned.certificate.status == "proven"
    assert judged.pinned.prediction.memory.fits_probability >= 0.95
    assert judged.ratio is not None
    assert judged.pinned_ratio is not None
    assert judged.pinned_ratio < 1.15 * judged.ratio
    if judged.plan.prediction.memory.fits_probability >= 0.95:
        assert {layer.recompute for layer in judged.pinned.layers} == {judged.run.recompute}


def test_what_lets_deepseek_v3_fit() -> None:
    """Inputs of products in 8 bits, and of a split backward only the products' operands: without either its devices are
    too small. Moments in bf16 widen the margin."""
    run = next(one for one in RUNS if one.model == "deepseek-v3")
    request, schedule = request_of(run), run.schedule

    def fits(layout: Layout, **rules: Any) -> float:
        runtime = request.runtime.model_copy(update=rules)
        plan = predict_plan(replace(request, runtime=runtime), layout, schedule, run.recompute)
        return plan.prediction.memory.fits_probability

    whole = request.runtime.kernels.model_copy(update={"narrow_saves": None})
    assert fits(run.layout) > 0.5
    assert fits(run.layout.model_copy(update={"optimizer_format": "fp32"})) < fits(run.layout) - 0.1
    assert fits(run.layout, kernels=whole) < 0.5
    assert fits(run.layout, defers_operands=False) < 0.5


def test_what_dropping_tokens_is_worth() -> None:
    """The two runs of MoE Parallel Folding are priced twice: at capacity 1 both lie within 5% of the published time."""
    folded = [judge_run(run) for run in RUNS if "Folding" in run.source]
    even = [one.ratio for one in folded if one.run.moe_capacity_factor == 1.0]
    dropless = [one.ratio for one in folded if one.run.moe_capacity_factor is None]
    assert len(even) == len(dropless) == 2
    assert all(ratio is not None and abs(ratio - 1.0) < 0.05 for ratio in even)
    for one in folded:
        waits_s = one.plan.prediction.breakdown["host_exposed_s"]
        assert (waits_s > 0.1) == (one.run.moe_capacity_factor is None)


def test_a_run_with_two_figures_is_refused(tmp_path: Path) -> None:
    both = RUNS[0].model_dump(exclude={"layout"}, exclude_none=True) | {"layout": {"tp": 8}, "mfu": 0.5}
    with pytest.raises(InvalidSpec, match="one of step_time_s, tflops_per_gpu and mfu"):
        PublishedRun.load(both, "run")
    path = tmp_path / "runs.toml"
    path.write_text("[[run]\n")
    with pytest.raises(InvalidSpec, match=r"runs.toml is not whole TOML"):
        load_published(path)
