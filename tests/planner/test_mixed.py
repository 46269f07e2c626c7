"""Pipelines over unlike groups of nodes: every rank at its own group's price, and sends that cross between them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "search"))

from small_instances import build_model
from small_mixed import BETWEEN, build_mixed, group_of, join

from costmodel.catalog.devices import load_device
from costmodel.even_split import even_split
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from costmodel.schema.plan import Plan
from costmodel.sends import estimate_send_s
from planner.assemble import reprice
from planner.evaluate import Evaluated, evaluate
from planner.mixed import group_of_ranks
from planner.placement import Placement
from planner.predict import predict_plan
from planner.prediction import predict
from planner.problem import Problem
from planner.report.console import make_console
from planner.report.plan import print_plan
from planner.request import Request, build_request

MODEL = build_model(num_layers=8, hidden=4096)
HOPPER, AMPERE = group_of("h100", 1, 4), group_of("a100-80g", 1, 8)
SCHEDULES = ("gpipe", "1f1b", "zb-h1")


def mixed(**changes: object) -> Request:
    return build_mixed(MODEL, join(HOPPER, AMPERE), **changes)  # type: ignore[arg-type]


def placed(request: Request, layout: Layout, schedule: str = "1f1b", policy: int = 0) -> Evaluated:
    lengths = tuple(even_split(len(request.model.layer_kinds()), layout.pp))
    return evaluate(Problem.from_request(request), Placement(layout, schedule, lengths, (policy,) * sum(lengths)))


def layout_of(pp: int = 3, first_group: int = 0, **degrees: int) -> Layout:
    tp = 12 // pp
    return Layout(pp=pp, tp=tp, num_microbatches=16, first_group=first_group, **degrees)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("policy", [0, 2])
def test_groups_that_differ_in_name_only_price_as_one(schedule: str, policy: int) -> None:
    """The cores of a host are no part of any price."""
    twins = join(group_of("h100", 1, 4), group_of("h100", 2, 4, cores=7))
    alike = join(group_of("h100", 3, 4))
    several = placed(build_mixed(MODEL, twins), layout_of(), schedule, policy)
    one = placed(build_mixed(MODEL, alike), layout_of(), schedule, policy)
    assert several.homes == (0, 1, 1)
    assert not one.by_group
    assert several.step_time_s == pytest.approx(one.step_time_s, rel=1e-12)
    np.testing.assert_allclose(several.priced.memory.device, one.priced.memory.device, rtol=1e-12)
    ours, theirs = predict(several), predict(one)
    assert ours.breakdown == pytest.approx(theirs.breakdown, rel=1e-9, abs=1e-9)
    assert ours.mfu == pytest.approx(theirs.mfu)
    assert ours.network == pytest.approx(theirs.network)


def test_every_rank_has_its_own_groups_price() -> None:
    evaluated = placed(mixed(), layout_of())
    for group, device in enumerate(("h100", "a100-80g")):
        alone = placed(build_mixed(MODEL, join(group_of(device, 3, 4))), layout_of())
        ranks = [rank for rank, home in enumerate(evaluated.homes) if home == group]
        for ours, theirs in (
            (evaluated.priced.work.forward_s, alone.priced.work.forward_s),
            (evaluated.priced.memory.device, alone.priced.memory.device),
            (evaluated.times.weight_grad_s[None], alone.times.weight_grad_s[None]),
        ):
            np.testing.assert_allclose(ours[0, ranks], theirs[0, ranks], rtol=1e-12)
    h100, a100 = (load_device(name).memory_bytes for name in ("h100", "a100-80g"))
    assert evaluated.capacity_bytes.tolist() == [h100, a100, a100]


def test_groups_meet_over_the_slowest_shared_level() -> None:
    """Inside a node of eight A100 two stages talk over NVLink, between the groups over the network."""
    slow = BETWEEN.model_copy(update={"bytes_per_s": 1e9})
    request = build_mixed(MODEL, join(HOPPER, AMPERE, between=slow))
    evaluated = placed(request, layout_of())
    layers = evaluated.by_group[1].layers
    far_s = estimate_send_s(layers.setting, layers.network, layers.layouts, layers.network.unit[-1:])[0]
    busy_s = evaluated.times.forward_s - evaluated.without_sends().forward_s
    met, near = (float(evaluated.times.edge_s[edge] + busy_s[edge]) for edge in (0, 1))
    assert met == pytest.approx(far_s)
    assert near == pytest.approx(float(layers.send_s[0]))
    assert met > 10 * near


def test_the_order_of_groups_is_the_layouts() -> None:
    cluster = join(HOPPER, AMPERE)
    assert group_of_ranks(cluster, layout_of()) == (0, 1, 1)
    assert group_of_ranks(cluster, layout_of(first_group=1)) == (1, 1, 0)
    assert group_of_ranks(cluster, layout_of(pp=6)) == (0, 0, 1, 1, 1, 1)
    ahead, behind = (placed(mixed(), layout_of(first_group=first)) for first in (0, 1))
    assert ahead.step_time_s != pytest.approx(behind.step_time_s, rel=1e-3)


def test_alike_groups_count_as_one() -> None:
    cluster = join(group_of("h100", 1, 4), AMPERE, group_of("h100", 2, 4))
    assert [(group.device, group.num_nodes) for group in cluster.unlike_groups] == [("h100", 3), ("a100-80g", 1)]
    assert [cluster.alone(group).num_devices for group in cluster.unlike_groups] == [12, 8]
    assert not cluster.alone(AMPERE).network


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_plan_prices_again_to_itself(schedule: str) -> None:
    plan = predict_plan(mixed(), layout_of(first_group=1), schedule, "full")
    again = Plan.load_json(plan.model_dump_json(), "the plan")
    assert again == plan
    assert reprice(again) == plan.prediction
    assert plan.cluster.counts == ((4, "h100"), (8, "a100-80g"))
    assert [stage.device for stage in plan.prediction.memory.per_stage] == ["a100-80g", "a100-80g", "h100"]
    exposed = [value for name, value in plan.prediction.breakdown.items() if name.endswith("_exposed_s")]
    assert sum(exposed) == pytest.approx(plan.prediction.step_time_s.mean)


def test_peaks_of_all_devices_count() -> None:
    prediction = predict(placed(mixed(), layout_of()))
    peak = 4 * 989.4e12 + 8 * 312e12
    said = prediction.model_flops_per_step / prediction.step_time_s.mean / prediction.mfu
    assert said == pytest.approx(peak, rel=1e-3)


def test_the_report_names_both_groups(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(predict_plan(mixed(), layout_of(first_group=1), "1f1b"), make_console(), explain=True)
    said = capsys.readouterr().out
    for words in ("4 × h100 + 8 × a100-80g", "80.0 GiB on a100-80g", "79.6 GiB on h100", "--first-group 1"):
        assert words in said, words


@pytest.mark.parametrize(
    ("layout", "schedule", "words"),
    [
        (layout_of(pp=2), "1f1b", "6 devices does not divide the 4 h100"),
        (layout_of(first_group=2), "1f1b", "first_group 2: joined has 2 kinds of node"),
        (layout_of(vpp=2), "interleaved-1f1b", "2 stages a rank is not priced"),
        (layout_of(), "zb-h2", "'zb-h2' with 1 stages a rank"),
        (
            layout_of().model_copy(update={"order": ("tp", "cp_ulysses", "cp_ring", "pp", "dp_shard", "dp_replicate")}),
            "1f1b",
            "the pipeline is outermost",
        ),
    ],
)
def test_layouts_that_do_not_lie_on_the_groups(layout: Layout, schedule: str, words: str) -> None:
    model = build_model(num_layers=8, hidden=3072, heads=12)
    request = build_mixed(model, join(HOPPER, AMPERE))
    with pytest.raises(InvalidSpec, match=words.replace("(", r"\(")):
        predict_plan(request, layout, schedule)


EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster.toml"


def test_a_cluster_file_of_two_groups() -> None:
    request = build_request("llama-8b", cluster=EXAMPLE, calibration="none")
    assert request.devices_said == "32 h100 + 64 a100-80g"
    assert any("h100 and a100-80g are priced" in one for one in request.assumptions)


def test_an_unlike_group_must_be_able_to_do_the_precision() -> None:
    with pytest.raises(InvalidSpec, match="a100-80g has no such matrix units"):
        build_request("llama-8b", cluster=EXAMPLE, calibration="none", precision="fp8")


def test_one_gpu_named_for_two_groups() -> None:
    with pytest.raises(InvalidSpec, match=r"--gpu h100: the cluster file .* says h100 and a100-80g"):
        build_request("llama-8b", cluster=EXAMPLE, gpu="h100", calibration="none")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('device = "a100-80g"', 'device = "a101"', "'a101'"),
        ('device = "a100-80g"', 'device = "cpu"', "group of cpu beside other nodes"),
        ('name = "two-generations"', 'name = "x"\nshared_cores = 4', "nodes of several kinds share no cores"),
    ],
)
def test_cluster_files_that_cannot_be(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(EXAMPLE.read_text().replace(old, new))
    with pytest.raises(InvalidSpec, match=words):
        build_request("llama-8b", cluster=path, calibration="none")
