"""Over which ranks state is split and summed, dense and expert."""

from __future__ import annotations

import numpy as np
import pytest
from pricing import make_problem, make_request, price_uniform, random_layouts

from costmodel.layouts import Layouts
from costmodel.schema.layout import Layout
from costmodel.shards import shard_groups
from costmodel.state import estimate_state_bytes


def columns(**degrees: int) -> Layouts:
    return Layouts.from_rows([(Layout(**degrees), "1f1b")])


@pytest.mark.parametrize("runtime", ["torch", "megatron-2021"])
@pytest.mark.parametrize(
    "degrees",
    [
        {"dp_replicate": 8, "ep": 8},
        {"dp_replicate": 2, "dp_shard": 4, "ep": 4},
        {"tp": 2, "dp_shard": 4, "ep": 8},
        {"cp_ring": 2, "dp_shard": 4},
        {"dp_replicate": 2, "dp_shard": 4},
    ],
)
def test_shards_times_replicas_are_all_ranks_that_hold_a_parameter(runtime: str, degrees: dict[str, int]) -> None:
    """dp · cp ranks hold a dense parameter, edp an expert's - neither more nor fewer."""
    setting = make_problem("mixtral-8x7b", 8, runtime=runtime).setting
    layouts = columns(**degrees, zero_stage=1)
    dense, expert = shard_groups(setting, layouts)
    assert dense.ranks == layouts.dp * layouts.cp
    assert expert.ranks == layouts.edp
    replicas = layouts.dp_replicate * (1 if setting.runtime.state.shards_over_cp else layouts.cp)
    assert dense.optimizer * replicas == dense.ranks
    assert expert.optimizer * np.minimum(replicas, layouts.edp) == expert.ranks


def test_experts_that_live_on_one_rank_each_are_not_reduced() -> None:
    """ep = 8 on 8 replicas: every expert has one home, so only dense gradients cross the network."""
    problem = make_problem("mixtral-8x7b", 8)
    spread = price_uniform(problem, columns(dp_replicate=8, ep=8, num_microbatches=64))
    dense = 4.0 * float(spread.params.dense[0, 0])
    assert float(spread.sent_bytes[0, 0].sum()) == pytest.approx(2.0 * 7 / 8 * dense)


def test_flattened_buckets_are_a_copy_of_at_most_all_gradients() -> None:
    """DeepSpeed flattens two buckets of 5e8 gradients; a smaller model has no more than its own, one rank none."""
    for model, ranks, elements in (("llama-3.1-8b", 8, 1e9), ("tiny", 8, None), ("tiny", 1, 0.0)):
        problem = make_problem(model, ranks, runtime="deepspeed", grad_reduce_dtype="fp16", precision="fp16")
        layouts = columns(dp_shard=ranks, zero_stage=1)
        priced = price_uniform(problem, layouts)
        state = estimate_state_bytes(problem.setting, layouts, priced.params)
        expected = 2.0 * (priced.params.total[0, 0] if elements is None else elements)
        assert float(state.buffers[0, 0]) == pytest.approx(expected), (model, ranks)


def test_groups_divide_the_ranks_of_random_layouts() -> None:
    request = make_request("mixtral-8x7b", 64, runtime="megatron")
    layouts = random_layouts(request, 200, seed=3)
    setting = make_problem("mixtral-8x7b", 64, runtime="megatron").setting
    for groups, held in zip(shard_groups(setting, layouts), (layouts.dp * layouts.cp, layouts.edp), strict=True):
        assert np.allclose(groups.ranks[:, 0], held)
        for size in (groups.params, groups.grads, groups.scattered, groups.optimizer):
            assert np.allclose(np.rint(groups.ranks / size), groups.ranks / size)
