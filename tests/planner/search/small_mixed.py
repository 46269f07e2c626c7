"""Small clusters of unlike groups of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise, product
from random import Random
from typing import Any

import numpy as np
from exhaustive import Mix, all_mixes
from small_instances import SHAPES, build_model, slower

from costmodel.catalog.clusters import default_cluster
from costmodel.catalog.devices import load_device
from costmodel.catalog.runtimes import load_runtime
from costmodel.even_split import even_split
from costmodel.schema.cluster import ClusterSpec, DeviceSpec, NetworkLevel, NodeGroup
from costmodel.schema.model import ModelSpec
from costmodel.schema.runtime import Runtime
from costmodel.schema.workload import Workload
from planner.evaluate import Evaluated, evaluate
from planner.placement import Placement
from planner.problem import Problem
from planner.request import Request
from planner.search.groups.best_first import MixedOutcome, MixedRun
from planner.search.groups.floors import estimate_after_s, estimate_floor_s
from planner.search.groups.space import enumerate_mixed
from planner.search.placed import deal

AMPLE = 1e15

BETWEEN = NetworkLevel(name="between nodes", size=64, bytes_per_s=25e9, latency_s=14e-6, efficiency=0.9)


def group_of(device: str, num_nodes: int, per_node: int, **host: Any) -> NodeGroup:
    """Nodes as the catalog has them; ``host``: what is different about their hosts."""
    group = default_cluster(load_device(device), per_node).groups[0]
    levels = tuple(level.model_copy(update={"name": f"{device} {level.name}"}) for level in group.levels)
    changed = group.host.model_copy(update=host)
    return group.model_copy(update={"num_nodes": num_nodes, "levels": levels, "host": changed})


def join(*groups: NodeGroup, between: NetworkLevel = BETWEEN) -> ClusterSpec:
    return ClusterSpec(name="joined", groups=groups, network=(between,))


def build_mixed(
    model: ModelSpec,
    cluster: ClusterSpec,
    *,
    seq_len: int = 2048,
    global_batch_size: int = 16,
    runtime: str | Runtime = "torch",
    devices: tuple[DeviceSpec, ...] = (),
    **limits: Any,
) -> Request:
    """A request on a cluster of catalog devices, or of ``devices``, one for every unlike group."""
    specs = devices or tuple(load_device(group.device) for group in cluster.unlike_groups)
    return Request(
        model=model,
        device=specs[0],
        other_devices=specs[1:],
        cluster=cluster,
        workload=Workload(seq_len=seq_len, global_batch_size=global_batch_size),
        runtime=runtime if isinstance(runtime, Runtime) else load_runtime(runtime),
        **limits,
    )


def random_mixed(seed: int) -> Request:
    """4 to 12 devices in two groups: any shape of model, memory that may be short, a network that may be slow."""
    draw = Random(seed)
    names = draw.choice([("h100", "a100-80g"), ("a100-40g", "h100"), ("rtx4090", "a6000"), ("h200", "v100-32g")])
    each = draw.choice((2, 4))
    cluster = join(group_of(names[0], 1, each), group_of(names[1], 1, each * draw.choice((1, 2))))
    if draw.random() < 0.4:
        cluster = slower(cluster, draw.choice((1.0, 30.0)), draw.choice((0.0, 1e-4, 1e-2)))
    model = build_model(
        shape=draw.choice(SHAPES),
        num_layers=draw.randint(4, 7),
        hidden=draw.choice((256, 1024, 4096)),
        vocab=draw.choice((1000, 32000, 256000)),
        tied=draw.random() < 0.3,
    )
    return build_mixed(
        model,
        cluster,
        seq_len=draw.choice((512, 2048, 8192)),
        global_batch_size=draw.choice((8, 16, 48)),
        runtime=draw.choice(("torch", "torchtitan", "megatron", "deepspeed", "megatron-2021")),
    )


def run_of(request: Request, most: int, draw: Random) -> MixedRun:
    """A run over some rows of the request's space, nothing placed yet, bounds as they first are."""
    layouts = enumerate_mixed(request)
    rows = sorted(draw.sample(range(len(layouts)), min(most, len(layouts))))
    run = MixedRun(
        request, Problem.from_request(request), MixedOutcome(layouts.take(np.array(rows, np.intp))), 0.0, None
    )
    run.floors = run.bounds = estimate_floor_s(run.rows, run.policies, estimate_after_s(run.rows, run.policies))
    return run


def splits(total: int, pp: int, runtime: Runtime) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every way to cut the model; no stage is empty, but where an end of the model may stand alone."""
    if not runtime.uneven_stages:
        ends = np.cumsum([0, *even_split(total, pp)]).tolist()
        yield tuple(pairwise(ends))
        return
    spare = int(runtime.ends_without_layers and pp > 1)
    for cuts in combinations(range(1 - spare, total + spare), pp - 1):
        yield tuple(zip((0, *cuts), (*cuts, total), strict=True))


def best_of_all(run: MixedRun, row: int, budgets: tuple[float, ...]) -> Evaluated | None:
    """Every split of the layers over the ranks, every stage under its fastest mix that fits, all simulated."""
    one, problem = run.rows.take(np.array([row])), run.problem
    total, homes = len(problem.kinds), one.homes
    fastest: dict[tuple[object, ...], Mix | None] = {}

    def mix_of(rank: int, span: tuple[int, int], policies: tuple[int, ...]) -> Mix | None:
        counts = tuple(np.bincount(problem.kinds[slice(*span)], minlength=problem.num_kinds).tolist())
        key = (rank, counts, policies)
        if key not in fastest:
            home = homes[rank]
            mixes = all_mixes(one.tables[home], rank, counts, policies, budgets[home])
            fastest[key] = min(mixes, key=lambda mix: (mix.backward_s, mix.extras_s), default=None)
        return fastest[key]

    found = []
    for policies, split in product(run.sets, splits(total, len(homes), problem.setting.runtime)):
        mixes = [mix_of(rank, span, policies) for rank, span in enumerate(split)]
        if any(mix is None for mix in mixes):
            continue
        lengths = tuple(stop - start for start, stop in split)
        dealt = deal(problem, lengths, range(len(homes)), [mix.counts for mix in mixes if mix is not None])
        placement = Placement(one.layouts.row(0), one.layouts.schedule_name(0), lengths, dealt)
        found.append(evaluate(problem, placement, layers=one.tables))
    return min(found, key=lambda each: each.step_time_s, default=None)
