"""Runtimes: what the frameworks can and cannot do, names, and files of one's own."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from costmodel.catalog.fit import NO_FIT
from costmodel.catalog.names import canonical
from costmodel.catalog.runtimes import load_runtime, runtime_names
from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import InvalidSpec, UnknownName


def test_names_and_aliases_are_unique() -> None:
    assert {"deepspeed", "megatron", "megatron-2021", "torch"} <= set(runtime_names())
    assert list(runtime_names()) == sorted(runtime_names())
    owner: dict[str, str] = {}
    for name in runtime_names():
        assert load_runtime(name).name == name
        for spelling in (name, *load_runtime(name).aliases):
            assert owner.setdefault(canonical(spelling), name) == name
    assert load_runtime("Megatron-LM").name == "megatron"
    assert load_runtime("FSDP2").name == "torch"


@pytest.mark.parametrize("name", runtime_names())
def test_every_runtime_names_its_source_and_comments_its_values(name: str) -> None:
    runtime = load_runtime(name)
    assert len(runtime.source) > 20
    assert runtime.date[:2] == "20"
    text = (resources.files("costmodel.catalog") / "data" / "runtimes" / f"{name}.toml").read_text()
    uncommented = re.findall(r"^\[overlap]\n(?=\w)|^\[state]\n(?=\w)|^\[memory]\n(?=\w)", text, re.MULTILINE)
    assert not uncommented, "each table opens with where its first value comes from"


def test_torch_keeps_no_compute_copy_and_defers_under_a_pipeline() -> None:
    torch = load_runtime("torch")
    assert not torch.state.keeps_compute_copy
    assert torch.state.full_grads_under_pipeline
    assert torch.state.zero_stages == (0, 1, 2, 3)
    assert set(torch.schedules) == set(SCHEDULES), "the executor runs every order"
    assert torch.compiled_kernels is not None
    assert torch.compiled_kernels.elementwise_bytes_factor < torch.kernels.elementwise_bytes_factor
    assert torch.compiled_kernels.launches_per_layer < torch.kernels.launches_per_layer


def test_megatron_then_and_now() -> None:
    now, then = load_runtime("megatron", NO_FIT), load_runtime("megatron-2021", NO_FIT)
    assert now.state.zero_stages == (0, 1)
    assert then.state.zero_stages == (0,)
    assert now.kernels.attention == "flash"
    assert then.kernels.attention == "unfused"
    assert now.sequence_parallel == "optional"
    assert then.sequence_parallel == "never"
    assert now.overlap.grad_reduce > 0
    assert then.overlap.grad_reduce == 0
    assert "full" in then.recompute
    assert "selective" not in then.recompute
    assert now.kernels.elementwise_bytes_factor < then.kernels.elementwise_bytes_factor


def test_a_path_loads_that_file(tmp_path: Path) -> None:
    text = (resources.files("costmodel.catalog") / "data" / "runtimes" / "megatron.toml").read_text()
    path = tmp_path / "ours.toml"
    path.write_text(text.replace('name = "megatron"', 'name = "ours"').replace("context = 0.9", "context = 0.8"))
    ours = load_runtime(str(path))
    assert ours.name == "ours"
    assert ours.overlap.context == 0.8
    for broken, says in (
        (text.replace("context = 0.9", "context = 1.5"), "overlap.context = 1.5"),
        (text.replace("context = 0.9", "contexts = 0.9"), "overlap.context"),
        (text.replace("zero_stages = [0, 1]", ""), "state.zero_stages"),
        (text[: len(text) // 2], "Field required|not whole TOML"),
        ("[state", "not whole TOML"),
    ):
        path.write_text(broken)
        with pytest.raises(InvalidSpec, match=says):
            load_runtime(str(path))
    with pytest.raises(InvalidSpec, match="cannot be read"):
        load_runtime(str(tmp_path / "missing.toml"))


def test_an_unknown_runtime_is_refused_with_names_that_work() -> None:
    with pytest.raises(UnknownName) as error:
        load_runtime("megatrom")
    assert error.value.hint
    assert "megatron" in error.value.hint
