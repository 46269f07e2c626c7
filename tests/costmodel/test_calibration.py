"""The fit finds the figures that made its data, priors hold elsewhere, and files are whole or refused."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from costmodel.calibration import (
    apply_calibration,
    calibration_path,
    default_parameters,
    load_calibration,
    prior_calibration,
    save_calibration,
)
from costmodel.calibration.fit import fit_calibration
from costmodel.calibration.parameters import read_path, write_path
from costmodel.calibration.predict import group_measurements, predict_seconds
from costmodel.schema.calibration import Calibration, Measurement
from costmodel.schema.cluster import ClusterSpec, DeviceSpec, HostSpec, NetworkLevel, NodeGroup
from costmodel.schema.errors import InvalidSpec

CPU = DeviceSpec(
    name="cpu", vendor="cpu", generation="test", peak_flops_per_s={"fp32": 8e10, "bf16": 4e10}, vector_flops_per_s=4e10,
    memory_bytes=8e9, memory_bytes_per_s=1e10, num_sms=1, attention_fraction=0.3, default_cluster="host",
)  # fmt: skip
GPU = DeviceSpec(
    name="gpu", vendor="nvidia", generation="test", peak_flops_per_s={"bf16": 1e15}, vector_flops_per_s=6e13,
    memory_bytes=8e10, memory_bytes_per_s=3e12, num_sms=132, default_cluster="host",
)  # fmt: skip
HOST = HostSpec(memory_bytes=1e11, memory_bytes_per_s=1e11, device_link_bytes_per_s=2e10)


def build_cluster(device: DeviceSpec) -> ClusterSpec:
    node = (NetworkLevel(name="inside", size=4, bytes_per_s=1e9, latency_s=5e-5),)
    network = (NetworkLevel(name="between", size=8, bytes_per_s=1e8, latency_s=1e-4),)
    group = NodeGroup(device=device.name, num_nodes=8, levels=node, host=HOST)
    return ClusterSpec(
        name="host", groups=(group,), network=network, shared_cores=2 if device.vendor == "cpu" else None
    )


def shapes(scale: int) -> list[tuple[str, dict[str, float]]]:
    """Operations of every kind, none of which leaves the node; ``scale`` makes them large enough for a GPU."""
    found: list[tuple[str, dict[str, float]]] = [("launch", {"elements": 1})] * 4
    for size in (64, 128, 256, 512, 1024):
        found += [
            ("gemm", {"m": size * scale, "n": size * scale, "k": size * scale, "ranks": ranks}) for ranks in (1, 4)
        ]
        attention = {"batch": 2, "seq_len": size * scale, "heads": 4, "head_dim": 64}
        found += [("attention_forward", attention), ("attention_backward", attention)]
        found += [(op, {"bytes": size * scale * 1e4}) for op in ("copy", "add", "adamw")]
        found += [
            (op, {"bytes": size**2 * 16, "group": group, "ranks": group})
            for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "p2p")
            for group in (2, 4)
        ]
    return found


def synthesize(
    device: DeviceSpec, cluster: ClusterSpec, truth: dict[str, float], noise: float, seed: int = 0
) -> list[Measurement]:
    """What a machine with the figures in ``truth`` would measure, each time off by exp(noise · N(0, 1))."""
    for path, value in truth.items():
        device, cluster = write_path(device, cluster, path, value)
    gpu = device.vendor != "cpu"
    cases = shapes(8 if gpu else 1)
    if gpu:
        cases += [("host_to_device", {"bytes": 1e8}), ("device_to_host", {"bytes": 1e8})] * 3
    precision = "bf16" if gpu else "fp32"
    blank = [Measurement(op=op, shape=shape, seconds=1.0, precision=precision) for op, shape in cases]
    seconds = predict_seconds(device, cluster, group_measurements(blank))
    seconds = seconds * np.exp(noise * np.random.default_rng(seed).standard_normal(len(blank)))
    return [m.model_copy(update={"seconds": float(s)}) for m, s in zip(blank, seconds, strict=True)]


CPU_TRUTH = {
    "device.peak_flops_per_s": 2e11, "device.memory_bytes_per_s": 3e10, "device.attention_fraction": 0.5,
    "device.kernel_launch_s": 1.5e-6, "network.inside.bytes_per_s": 2.5e9, "network.inside.latency_s": 6e-4,
    "network.inside.p2p_latency_s": 8e-5,
}  # fmt: skip
GPU_TRUTH = {
    "device.sustained_fraction": 0.72, "device.memory_fraction": 0.92, "device.attention_fraction": 0.45,
    "device.kernel_launch_s": 6e-6, "network.inside.bytes_per_s": 8e8, "network.inside.latency_s": 1e-4,
    "network.inside.p2p_latency_s": 3e-4,
    "host.device_link_bytes_per_s": 2.4e10,
}  # fmt: skip


def values(calibration: Calibration) -> dict[str, float]:
    return {parameter.name: parameter.value for parameter in calibration.parameters}


@pytest.mark.parametrize(("device", "truth"), [(CPU, CPU_TRUTH), (GPU, GPU_TRUTH)], ids=["cpu", "gpu"])
def test_recovers_the_figures_behind_synthetic_measurements(device: DeviceSpec, truth: dict[str, float]) -> None:
    cluster = build_cluster(device)
    calibration = fit_calibration(device, cluster, synthesize(device, cluster, truth, noise=0.03))
    found = values(calibration)
    for path, value in truth.items():
        assert found[path] == pytest.approx(value, rel=0.08), path
    assert calibration.residual_log_std == pytest.approx(0.03, rel=0.5)


def test_covariance_covers_the_truth() -> None:
    """Over many noisy draws the errors, in units of the claimed spread, have a spread of about one."""
    cluster = build_cluster(CPU)
    scores = []
    for seed in range(16):
        calibration = fit_calibration(CPU, cluster, synthesize(CPU, cluster, CPU_TRUTH, noise=0.1, seed=seed))
        for parameter in calibration.parameters:
            if parameter.name in CPU_TRUTH:
                scores.append(math.log(parameter.value / CPU_TRUTH[parameter.name]) / parameter.log_std)
        spreads = np.sqrt(np.diag(calibration.covariance))
        assert spreads == pytest.approx([parameter.log_std for parameter in calibration.parameters])
    assert np.mean(np.abs(scores) < 1.645) >= 0.85
    assert 0.4 < np.std(scores) < 1.3


def test_outliers_do_not_break_the_fit() -> None:
    cluster = build_cluster(CPU)
    clean = synthesize(CPU, cluster, CPU_TRUTH, noise=0.05)
    spoiled = [m.model_copy(update={"seconds": m.seconds * 20}) if i % 8 == 5 else m for i, m in enumerate(clean)]
    found = values(fit_calibration(CPU, cluster, spoiled))
    for path, value in CPU_TRUTH.items():
        assert abs(math.log(found[path] / value)) < 0.25, path


def test_priors_hold_where_nothing_is_measured() -> None:
    cluster = build_cluster(CPU)
    gemms = [m for m in synthesize(CPU, cluster, CPU_TRUTH, noise=0.02) if m.op == "gemm"]
    calibration = fit_calibration(CPU, cluster, gemms)
    for parameter in calibration.parameters:
        touched = parameter.name in ("device.peak_flops_per_s", "device.kernel_launch_s")
        assert (parameter.value == pytest.approx(parameter.prior)) == (not touched), parameter.name
        assert (parameter.log_std == pytest.approx(parameter.prior_log_std, rel=1e-3)) == (not touched), parameter.name
    assert set(calibration.valid) == {"gemm"}
    assert calibration.valid["gemm"] == (64, 1024)


def test_an_unseen_level_keeps_its_prior() -> None:
    cluster = build_cluster(CPU)
    calibration = fit_calibration(CPU, cluster, synthesize(CPU, cluster, CPU_TRUTH, noise=0.02))
    found = values(calibration)
    assert found["network.between.bytes_per_s"] == pytest.approx(1e8)
    assert found["network.inside.bytes_per_s"] == pytest.approx(2.5e9, rel=0.1)


def test_a_fraction_never_exceeds_one() -> None:
    cluster = build_cluster(GPU)
    fast = [m for m in synthesize(GPU, cluster, GPU_TRUTH, noise=0.0) if m.op == "gemm"]
    faster = [m.model_copy(update={"seconds": m.seconds / 1.5}) for m in fast if m.shape["m"] >= 4096] * 10
    calibration = fit_calibration(GPU, cluster, faster)
    assert values(calibration)["device.sustained_fraction"] == pytest.approx(1.0, abs=1e-3)
    apply_calibration(GPU, cluster, calibration)


def test_predictions_after_the_fit_are_those_of_the_calibrated_specs() -> None:
    cluster = build_cluster(CPU)
    measurements = synthesize(CPU, cluster, CPU_TRUTH, noise=0.1)
    calibration = fit_calibration(CPU, cluster, measurements)
    again = predict_seconds(*apply_calibration(CPU, cluster, calibration), group_measurements(measurements))
    assert again == pytest.approx([m.predicted_seconds for m in calibration.measurements])


def test_shared_cores_slow_down_ranks_that_run_at_once() -> None:
    cluster = build_cluster(CPU)
    shape = {"m": 256.0, "n": 256.0, "k": 256.0}
    pair = [Measurement(op="gemm", shape={**shape, "ranks": ranks}, seconds=1.0) for ranks in (1.0, 6.0)]
    alone_s, together_s = predict_seconds(CPU, cluster, group_measurements(pair))
    assert together_s == pytest.approx(3 * alone_s)


def test_apply_replaces_each_figure_and_names_its_source() -> None:
    cluster = build_cluster(CPU)
    calibration = fit_calibration(CPU, cluster, synthesize(CPU, cluster, CPU_TRUTH, noise=0.02))
    device, network = apply_calibration(CPU, cluster, calibration)
    for parameter in calibration.parameters:
        assert read_path(device, network, parameter.name) == pytest.approx(parameter.value)
    assert device.peak_flops_per_s["bf16"] / device.peak_flops_per_s["fp32"] == pytest.approx(0.5)
    assert device.sources["kernel_launch_s"].date == calibration.date
    assert network.sources["inside.latency_s"].date == calibration.date


def test_a_network_counts_only_where_it_was_measured() -> None:
    cluster = build_cluster(CPU)
    calibration = fit_calibration(CPU, cluster, synthesize(CPU, cluster, CPU_TRUTH, noise=0.02))
    elsewhere = cluster.model_copy(update={"name": "elsewhere"})
    device, network = apply_calibration(CPU, elsewhere, calibration)
    assert network == elsewhere
    assert device.memory_bytes_per_s != CPU.memory_bytes_per_s
    with pytest.raises(InvalidSpec, match="of device 'cpu', not of 'gpu'"):
        apply_calibration(GPU, cluster, calibration)


def test_a_figure_that_cannot_be_is_refused() -> None:
    cluster = build_cluster(CPU)
    prior = prior_calibration(CPU, cluster)
    first = prior.parameters[0]
    negative = prior.model_copy(
        update={"parameters": (first.model_copy(update={"value": -1.0}), *prior.parameters[1:])}
    )
    with pytest.raises(InvalidSpec, match="peak_flops_per_s"):
        apply_calibration(CPU, cluster, negative)
    strange = prior.model_copy(update={"parameters": (first.model_copy(update={"name": "device.colour"}),)})
    with pytest.raises(InvalidSpec, match=r"device\.colour"):
        apply_calibration(CPU, cluster, strange)


def test_prior_is_wider_for_a_cpu_than_for_a_known_gpu() -> None:
    cpu = {p.name: p.prior_log_std for p in default_parameters(CPU, build_cluster(CPU))}
    gpu = {p.name: p.prior_log_std for p in default_parameters(GPU, build_cluster(GPU))}
    assert all(cpu[name] > gpu[name] for name in cpu.keys() & gpu.keys())
    assert (
        apply_calibration(CPU, build_cluster(CPU), prior_calibration(CPU, build_cluster(CPU)))[0].num_sms == CPU.num_sms
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"op": "teleport"}, "op = 'teleport'"),
        ({"shape": {"m": 2.0, "n": 2.0}}, "shape lacks k"),
        ({"seconds": 0.0}, "seconds = 0.0"),
        ({"precision": "fp7"}, "precision = 'fp7'"),
    ],
)
def test_a_senseless_measurement_is_refused(change: dict[str, object], complaint: str) -> None:
    good = Measurement(op="gemm", shape={"m": 2.0, "n": 2.0, "k": 2.0}, seconds=1.0)
    with pytest.raises(InvalidSpec, match=complaint):
        fit_calibration(CPU, build_cluster(CPU), [good.model_copy(update=change)])


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="no measurements"):
        fit_calibration(CPU, build_cluster(CPU), [])


@pytest.fixture
def calibration() -> Calibration:
    cluster = build_cluster(CPU)
    return fit_calibration(CPU, cluster, synthesize(CPU, cluster, CPU_TRUTH, noise=0.1))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_round_trip_through_the_cache_is_exact(calibration: Calibration, cache: Path) -> None:
    assert load_calibration(None, "cpu") is None
    assert save_calibration(calibration) == cache / "parlay" / "cpu.json" == calibration_path("cpu")
    assert load_calibration(None, "cpu") == calibration
    assert load_calibration("none", "cpu") is None
    assert load_calibration(None, "h100") is None


def test_without_a_cache_variable_the_home_folder_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for useless in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", useless)
        assert calibration_path("cpu") == tmp_path / ".cache" / "parlay" / "cpu.json"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file(
    calibration: Calibration, cache: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = save_calibration(calibration)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, failing, interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_calibration(calibration.model_copy(update={"host": "another"}))
    assert load_calibration(None, "cpu") == calibration
    assert list(path.parent.iterdir()) == [path]


def test_a_damaged_file_is_one_sentence(calibration: Calibration, cache: Path) -> None:
    path = save_calibration(calibration)
    whole = path.read_text()
    for damaged, complaint in (
        (whole[: len(whole) // 2], "is not whole JSON"),
        (whole.replace('"residual_log_std":', '"residual_log_sd":'), "residual_log_std: Field required"),
        (
            whole.replace('"schema_version": 1', '"schema_version": 9').replace(
                '"schema_version":1', '"schema_version":9'
            ),
            "schema_version",
        ),
        ("[]", "calibration file"),
    ):
        path.write_text(damaged)
        with pytest.raises(InvalidSpec, match=complaint) as caught:
            load_calibration(None, "cpu")
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSpec, match="cannot be read"):
        load_calibration(None, "cpu")


def test_a_named_file_must_be_there_and_fit_the_device(calibration: Calibration, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="does not exist"):
        load_calibration(tmp_path / "absent.json", "cpu")
    path = save_calibration(calibration, tmp_path / "mine.json")
    assert load_calibration(str(path), "cpu") == calibration
    with pytest.raises(InvalidSpec, match="not of 'h100'"):
        load_calibration(path, "h100")


def test_an_unwritable_place_is_one_sentence(calibration: Calibration, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidSpec, match="cannot be written"):
        save_calibration(calibration, tmp_path / "file" / "cpu.json")


def test_loading_and_applying_needs_no_scipy() -> None:
    code = (
        "import sys; from costmodel.calibration import load_calibration, apply_calibration;"
        "sys.exit(any(m.split('.')[0] in ('scipy', 'torch') for m in sys.modules))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
