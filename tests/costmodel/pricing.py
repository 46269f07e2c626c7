"""Problems, single splits and random layouts for tests of the cost model; importable wherever a conftest adds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from costmodel.catalog.fit import NO_FIT
from costmodel.even_split import uniform_assignment
from costmodel.layer_table import price_layers
from costmodel.layouts import Assignment, Layouts
from costmodel.ops import Split
from costmodel.price import Priced, price
from planner.problem import Problem
from planner.request import Request, build_request
from planner.search.space import enumerate_layouts


def make_request(model: str, gpus: int, **options: Any) -> Request:
    """A request priced from the catalog's own figures, whatever this machine and published runs were calibrated to."""
    return build_request(model, gpus, calibration="none", fit=NO_FIT, **options)


def make_problem(model: str, gpus: int, **options: Any) -> Problem:
    return Problem.from_request(make_request(model, gpus, **options))


def one_split(seq_len: int = 2048, **degrees: float) -> Split:
    """One row of degrees, 1 where none is given; sequence parallel unless told."""
    names = ("tp", "cp_ring", "cp_ulysses", "ep", "etp", "micro_batch_size", "sequence_parallel", "vocab_over")
    assert set(degrees) <= set(names), degrees
    return Split(**{name: np.array([float(degrees.get(name, 1.0))]) for name in names}, seq_len=float(seq_len))


def random_layouts(request: Request, count: int, seed: int) -> Layouts:
    """``count`` rows of the request's space, or all of them where there are fewer."""
    layouts = enumerate_layouts(request)
    chosen = np.random.default_rng(seed).permutation(len(layouts))[:count]
    return layouts.take(np.sort(chosen))


def uniform(problem: Problem, layouts: Layouts, policy: int) -> Assignment:
    """One policy for every layer, layers split evenly."""
    return uniform_assignment(problem.kinds, problem.num_kinds, layouts, policy)


def price_uniform(problem: Problem, layouts: Layouts, policy: int = 0) -> Priced:
    """Price rows of one pp and vpp under one policy."""
    layers = price_layers(problem.setting, problem.network, layouts)
    return price(layers, uniform(problem, layouts, policy))


def price_groups(problem: Problem, layouts: Layouts, policies: Sequence[int] = (0,)) -> list[list[Priced]]:
    """For each policy, the prices of any rows: one Priced for each pp and vpp, in an order that all policies share."""
    layers = price_layers(problem.setting, problem.network, layouts)
    pairs = sorted(set(zip(layouts.pp.tolist(), layouts.vpp.tolist(), strict=True)))
    groups = [layers.take((layouts.pp == pp) & (layouts.vpp == vpp)) for pp, vpp in pairs]
    return [[price(group, uniform(problem, group.layouts, policy)) for group in groups] for policy in policies]
