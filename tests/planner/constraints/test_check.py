"""Constraints against each other, the runtime, the model and the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.schema.errors import Infeasible, InvalidSpec
from planner.constraints import KEYS, check_agreement, check_runtime, read_constraints
from planner.request import Request, build_request


def ask(model: str = "llama-8b", gpus: int = 8, **options: Any) -> Request:
    return build_request(model, gpus, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fix": ["tp=8"], "limit": ["tp=..4"]}, "--fix tp=8 lies outside what --limit and --forbid leave of tp"),
        ({"fix": ["vpp=3"], "forbid": ["vpp=3"]}, "--fix vpp=3 lies outside"),
        ({"fix": ["optimizer_offload=0.5"], "forbid": ["offload"]}, "takes away"),
        ({"fix": ["activation_offload.3=1"], "forbid": ["offload"]}, "--fix activation_offload.3=1 asks for what"),
        ({"fix": ["recompute.0-3=full"], "forbid": ["full-recompute"]}, "--fix recompute.0-3=full asks for what"),
        ({"fix": ["recompute.0-3=full", "recompute=none"]}, "contradicts --fix recompute=none"),
        ({"fix": ["sequence_parallel=true"], "forbid": ["sp"]}, "--forbid sequence_parallel"),
    ],
)
def test_contradictions(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpec, match=words):
        check_agreement(read_constraints(**options))


@pytest.mark.parametrize(
    ("runtime", "fix", "words", "able"),
    [
        ("torch", "cp_ring=2", "--fix cp_ring=2: the runtime torch cannot run it .ring context", "megatron"),
        ("torch", "ep=2", "expert parallelism", "megatron"),
        ("torch", "optimizer_offload=1", "share of the optimizer on the host", "deepspeed"),
        ("deepspeed", "layers_per_stage=9/8/8/7", None, None),
        ("torch", "layers_per_stage=0/16/16/0", None, None),
        ("deepspeed", "layers_per_stage=0/16/16", "how many layers each stage holds", "llama-3, megatron"),
        ("fsdp", "sequence_parallel=true", "--fix sequence_parallel=true", "megatron"),
        ("maxtext", "recompute.0-3=full", "treats all layers alike", "torch"),
    ],
)
def test_what_a_runtime_cannot_run(runtime: str, fix: str, words: str | None, able: str | None) -> None:
    from costmodel.catalog.runtimes import load_runtime

    asked, rules = read_constraints(fix=[fix]), load_runtime(runtime)
    if words is None:
        check_runtime(asked, rules)
        return
    with pytest.raises(InvalidSpec, match=words) as refused:
        check_runtime(asked, rules)
    assert able is not None
    assert able in str(refused.value.hint)


def test_a_limit_that_the_runtime_cannot_keep() -> None:
    with pytest.raises(InvalidSpec, match=r"--limit cp_ring=2\.\.: the runtime torch"):
        ask(limit=["cp_ring=2.."])


def test_an_allowed_technique_that_the_runtime_does_not_have() -> None:
    with pytest.raises(InvalidSpec, match="--allow low_rank_optimizer: the runtime megatron does not have it"):
        ask(allow=["low-rank-optimizer"], runtime="megatron")


@pytest.mark.parametrize(
    ("options", "words", "hint"),
    [
        ({"fix": ["tp=64"], "gpus": 64}, "--fix tp=64: it does not divide the 32 heads", "one of 1, 2, 4, 8, 16, 32"),
        ({"fix": ["pp=64"], "gpus": 64}, "--fix pp=64: llama-3.1-8b has 32 layers", None),
        ({"fix": ["pp=8,vpp=8"]}, "--fix pp=8, vpp=8: llama-3.1-8b has 32 layers", "34 stages at most"),
        ({"fix": ["ep=2"], "runtime": "megatron"}, "--fix ep=2: llama-3.1-8b has no experts", "one of 1"),
        ({"fix": ["micro_batch_size=3"]}, "--fix micro_batch_size=3: it does not divide the global batch", "one of 1"),
        ({"fix": ["cp_ring=8"], "runtime": "megatron", "seq_len": 1000}, "a sequence of 1000 tokens", None),
        ({"fix": ["layers_per_stage=8/8/8/7"]}, "places 31 layers, and llama-3.1-8b has 32", None),
        ({"fix": ["layers_per_stage=8/8/8/8,pp=2"]}, "has 4 stages, and --fix pp and vpp make 2", None),
        ({"fix": ["recompute.30-40=full"]}, "--fix recompute.30-40=full: llama-3.1-8b has layers 0 to 31", None),
        ({"free_memory": "90GiB"}, "one h100 has 79.6", None),
    ],
)  # fmt: skip
def test_what_the_model_the_batch_and_the_device_forbid(options: dict[str, Any], words: str, hint: str | None) -> None:
    with pytest.raises(InvalidSpec, match=words) as refused:
        ask(**options)
    assert hint is None or hint in str(refused.value.hint)


def test_degrees_that_do_not_divide_the_devices() -> None:
    with pytest.raises(Infeasible, match="tp 2 · pp 3 = 6 ranks"):
        ask(fix=["tp=2,pp=3"])


def test_memory_held_free_is_taken_from_the_device_and_said() -> None:
    plain, held = ask(), ask(free_memory="8GiB")
    assert plain.device.memory_bytes - held.device.memory_bytes == 8 * 2**30
    assert any("8 GiB of each device are held free" in one for one in held.assumptions)


def test_every_column_of_a_layout_is_a_key() -> None:
    from costmodel.schema.layout import Layout

    assert set(Layout.model_fields) - {"expert_order"} <= set(KEYS)
