"""The update on device and host: closed forms against the linear program that they solve."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pulp
import pytest
from pricing import make_problem, price_uniform

from costmodel.layouts import Column, Layouts
from costmodel.schema.layout import Layout
from costmodel.update import UpdateRates, host_after_s, solve_streamed
from planner.problem import Problem
from planner.search.offload import best_share


def random_rates(draw: Random) -> tuple[UpdateRates, Column]:
    """Seconds over three decades, hidden or not; the last of the backward."""
    host, grads, device, stream, backward = (np.array([[10.0 ** draw.uniform(-3.0, 0.0)]]) for _ in range(5))
    hidden = draw.choice((0.0, 0.5, 0.8, 1.0))
    return UpdateRates(host, grads, device, stream, hidden), backward * draw.choice((0.0, 1.0))


def seconds(rates: UpdateRates, backward_s: Column) -> tuple[float, ...]:
    columns = (rates.host_s, rates.grads_s, rates.device_s, rates.stream_s, backward_s)
    return tuple(float(column[0, 0]) for column in columns)


def after_s(rates: UpdateRates, backward_s: Column, share: float, streamed: float) -> float:
    """T of the linear program, written out."""
    host, grads, device, stream, backward = seconds(rates, backward_s)
    away = share - streamed
    falling = ((host + (1.0 - rates.hidden) * grads) * away, (host + grads) * away - backward)
    return max(*falling, device * (1.0 - away), stream * streamed)


def solve(rates: UpdateRates, backward_s: Column, share: float | None) -> float:
    """The linear program at the top of costmodel/update.py; ``share`` None: chosen too, with nothing streamed."""
    host, grads, device, stream, backward = seconds(rates, backward_s)
    program = pulp.LpProblem("update", pulp.LpMinimize)
    least = pulp.LpVariable("T", 0.0)
    x = pulp.LpVariable("x", 0.0, 1.0) if share is None else share
    y = pulp.LpVariable("y", 0.0, 0.0 if share is None else share)
    program += least
    program += least >= (host + (1.0 - rates.hidden) * grads) * (x - y)
    program += least >= (host + grads) * (x - y) - backward
    program += least >= device * (1.0 - x + y)
    program += least >= stream * y
    program.solve(pulp.HiGHS(msg=False))
    assert program.status == pulp.LpStatusOptimal
    return float(least.value())


@pytest.mark.parametrize("seed", range(40))
def test_closed_forms_solve_the_program(seed: int) -> None:
    draw = Random(seed)
    (rates, backward_s), share = random_rates(draw), draw.choice((1.0, draw.random()))
    streamed = float(solve_streamed(rates, np.array([[share]]), backward_s)[0, 0])
    assert 0.0 <= streamed <= share
    assert after_s(rates, backward_s, share, streamed) == pytest.approx(solve(rates, backward_s, share), rel=1e-6)
    best = float(best_share(rates, backward_s)[0, 0])
    assert after_s(rates, backward_s, best, 0.0) == pytest.approx(solve(rates, backward_s, None), rel=1e-6)


def test_gradients_hide_on_their_way_to_the_host_and_its_update_does_not() -> None:
    rates, backward_s = UpdateRates(*(np.array([[one]]) for one in (1.0, 0.5, 0.1, 0.5)), hidden=0.8), np.array([[0.3]])
    assert host_after_s(rates, np.array([[0.2]]), backward_s) == pytest.approx(0.2 * (1.0 + 0.2 * 0.5))
    assert host_after_s(rates, np.array([[1.0]]), backward_s) == pytest.approx(1.0 + 0.5 - 0.3)


def priced_s(problem: Problem, share: float) -> float:
    layout = Layout(dp_shard=8, zero_stage=1, optimizer_offload=share)
    extras = price_uniform(problem, Layouts.from_rows([(layout, "1f1b")])).extras
    return float((extras.optimizer_s + extras.offload_exposed_s)[0, 0])


def test_a_share_is_updated_beside_the_device_and_all_of_it_as_ever() -> None:
    """DeepSpeed issues the device's subgroups first, then works on the host's: what hides costs nothing."""
    problem = make_problem("llama-3.1-8b", 8, runtime="deepspeed")
    fixed_s = problem.setting.runtime.kernels.host_s_per_step
    none, some, half, everything = (priced_s(problem, share) - fixed_s for share in (0.0, 0.01, 0.5, 1.0))
    assert some == pytest.approx(0.99 * none)
    assert none < half < everything
    apart = problem.setting.runtime.model_copy(update={"partial_optimizer_offload": False})
    alone = replace(problem, setting=replace(problem.setting, runtime=apart))
    assert priced_s(alone, 1.0) - fixed_s == pytest.approx(everything)
    assert priced_s(alone, 0.5) - fixed_s == pytest.approx(half + 0.5 * none)
