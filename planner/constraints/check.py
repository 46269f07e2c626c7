"""Constraints against each other, the runtime, the model and the cluster: each refusal names both sides."""

from __future__ import annotations

from collections.abc import Iterable
from operator import lt
from typing import TYPE_CHECKING, Any

from costmodel.schema.errors import Infeasible, InvalidSpec
from costmodel.schema.runtime import Runtime
from planner.constraints.keys import KEYS, WORLD
from planner.constraints.limits import Limit
from planner.constraints.read import Constraints
from planner.constraints.techniques import ALLOWABLE, FORBIDDABLE, optimizer_technique
from planner.constraints.values import shown
from planner.stage_ends import fewest_by_stage, most_stages, said_stages

if TYPE_CHECKING:
    from planner.request import Request


def check_agreement(asked: Constraints) -> None:
    """Nothing may be fixed that is forbidden, beyond a limit or not among the only schedules. Raises InvalidSpec."""
    fixed = [(f"--fix {key}={shown(value)}", key, value) for key, value in asked.fixed.items()]
    pinned = [(f"--fix {pin}={shown(pin.value)}", pin.key, pin.value) for pin in asked.pins]
    for said, key, value in (*fixed, *pinned):
        for name in sorted(asked.forbidden):
            technique = FORBIDDABLE.get(name)
            banned = technique.bans(key, value) if technique else (key, value) == ("schedule", name)
            if banned:
                raise InvalidSpec(f"{said} asks for what --forbid {name} takes away", "keep one of them")
        if not asked.limits.get(key, Limit()).admits(value):
            raise InvalidSpec(f"{said} lies outside what --limit and --forbid leave of {key}", "keep one of them")
    for pin in asked.pins:
        if asked.fixed.get(pin.key, pin.value) != pin.value:
            whole = f"--fix {pin.key}={shown(asked.fixed[pin.key])}"
            raise InvalidSpec(
                f"--fix {pin}={shown(pin.value)} contradicts {whole}, which holds for all layers", "keep one of them"
            )
    wanted = str(asked.fixed.get("optimizer_format", "fp32"))
    if wanted != "fp32" and optimizer_technique(wanted) not in asked.allowed:
        raise InvalidSpec(
            f"--fix optimizer_format={wanted} changes what is computed", f"add --allow {optimizer_technique(wanted)}"
        )
    only = asked.schedules
    if only and asked.fixed.get("schedule", only[0]) not in only:
        raise InvalidSpec(
            f"--fix schedule={asked.fixed['schedule']} is not among --schedule {','.join(only)}", "keep one of them"
        )


def check_world(asked: Constraints, num_devices: int) -> None:
    """The fixed degrees must leave a whole number of ranks for the free ones. Raises Infeasible."""
    given = {key: int(asked.fixed[key]) for key in WORLD if key in asked.fixed}
    product = 1
    for degree in given.values():
        product *= degree
    if num_devices % product:
        said = " · ".join(f"{key} {degree}" for key, degree in given.items())
        raise Infeasible(
            f"--fix asks for {said} = {product} ranks, which does not divide the {num_devices} devices",
            hint=f"nearest counts of devices that work: {_nearest_multiples(product, num_devices)}",
        )


def check_runtime(asked: Constraints, runtime: Runtime) -> None:
    """The runtime must have what is fixed, every schedule asked for and every technique allowed, and a fixed schedule
    must exist at the fixed ``pp`` and ``vpp``. Raises InvalidSpec, which names the runtimes that have it.
    """
    for name in dict.fromkeys((*(asked.schedules or ()), *_fixed_schedule(asked))):
        if name not in runtime.schedules:
            raise InvalidSpec(f"schedule {name!r}: the runtime {runtime.name} has {', '.join(runtime.schedules)}")
    _check_sizes(asked)
    for name, value in (*asked.fixed.items(), *((pin.key, pin.value) for pin in asked.pins)):
        key = KEYS[name]
        if not key.runs(runtime, value):
            able = [one.name for one in _runtimes() if key.runs(one, value)]
            raise InvalidSpec(
                f"--fix {name}={shown(value)}: the runtime {runtime.name} cannot run it ({key.says})", _who(able)
            )
    for name, limit in asked.limits.items():
        key, some = KEYS[name], limit.example
        if key.unused is not None and not limit.admits(key.unused) and not key.runs(runtime, some):
            able = [one.name for one in _runtimes() if key.runs(one, some)]
            raise InvalidSpec(
                f"--limit {name}={limit.words}: the runtime {runtime.name} cannot run it ({key.says})", _who(able)
            )
    for pin in asked.pins:
        if not runtime.per_layer_recompute and pin.key == "recompute":
            able = [one.name for one in _runtimes() if one.per_layer_recompute]
            raise InvalidSpec(
                f"--fix {pin}={shown(pin.value)}: the runtime {runtime.name} treats all layers alike", _who(able)
            )
    for name in sorted(asked.allowed):
        if not ALLOWABLE[name].runs(runtime):
            able = [one.name for one in _runtimes() if ALLOWABLE[name].runs(one)]
            raise InvalidSpec(
                f"--allow {name}: the runtime {runtime.name} does not have it ({ALLOWABLE[name].says})", _who(able)
            )


def _fixed_schedule(asked: Constraints) -> Iterable[str]:
    return [str(asked.fixed["schedule"])] if "schedule" in asked.fixed else []


def _check_sizes(asked: Constraints) -> None:
    from planner.schedules import SCHEDULES

    fixed = asked.fixed
    for name in _fixed_schedule(asked):
        kind = SCHEDULES[name]
        ranks = [int(fixed["pp"])] if "pp" in fixed else range(1, 5)
        chunks = [int(fixed["vpp"])] if "vpp" in fixed else [kind.vpp]
        # No schedule needs more than two micro-batches.
        if not any(kind.allows(pp, 2, vpp) for pp in ranks for vpp in chunks):
            raise InvalidSpec(f"--fix {_stages_said(asked)}: schedule {kind.name!r} needs {kind.rule}")


def _stages_said(asked: Constraints | Request) -> str:
    """``pp=4, vpp=2``: of the two what is fixed."""
    return ", ".join(f"{key}={asked.fixed[key]}" for key in ("pp", "vpp") if key in asked.fixed)


def check_request(request: Request) -> None:
    """What is fixed must divide what the model, the sequence and the batch have. Raises InvalidSpec."""
    from planner.search.rules import divisors, head_limits

    fixed, model, limits = request.fixed, request.model, head_limits(request)
    batch, seq_len = request.workload.global_batch_size, request.workload.seq_len

    def refuse(key: str, why: str, works: Iterable[Any] | None = None) -> None:
        hint = None if works is None else f"one of {', '.join(map(str, works))} works"
        raise InvalidSpec(f"--fix {key}={shown(fixed[key])}: {why}", hint)

    groups = len(request.cluster.unlike_groups)
    if int(fixed.get("first_group", 0)) >= groups:
        refuse("first_group", f"{request.cluster.name} has {groups} kinds of node, counted from 0", range(groups))
    for key in ("tp", "cp_ulysses"):
        if limits.heads % int(fixed.get(key, 1)):
            refuse(key, f"it does not divide the {limits.heads} heads of {model.name}", divisors(limits.heads))
    for key in ("ep", "etp"):
        if int(fixed.get(key, 1)) > 1 and not limits.experts:
            refuse(key, f"{model.name} has no experts", (1,))
    if int(fixed.get("ep", 1)) > 1 and limits.experts % int(fixed["ep"]):
        refuse("ep", f"it does not divide the {limits.experts} experts of {model.name}", divisors(limits.experts))
    for key in ("cp", "cp_ring", "cp_ulysses"):
        if int(fixed.get(key, 1)) > 1 and seq_len % (2 * int(fixed[key])):
            refuse(key, f"a sequence of {seq_len} tokens must divide by twice as many ranks")
    stages, most = int(fixed.get("pp", 1)) * int(fixed.get("vpp", 1)), most_stages(model, request.runtime)
    if stages > most:
        raise InvalidSpec(
            f"--fix {_stages_said(request)}: {said_stages(model, request.runtime)}", f"{most} stages at most"
        )
    if batch % int(fixed.get("micro_batch_size", 1)):
        refuse("micro_batch_size", f"it does not divide the global batch of {batch}", divisors(batch))
    _check_layers(request)


def _check_layers(request: Request) -> None:
    model, lengths = request.model, request.fixed.get("layers_per_stage")
    if lengths is not None and sum(lengths) != model.num_layers:
        raise InvalidSpec(
            f"--fix layers_per_stage={shown(lengths)}: it places {sum(lengths)} layers, and {model.name} has"
            f" {model.num_layers}"
        )
    if lengths is not None and any(map(lt, lengths, fewest_by_stage(model, request.runtime, len(lengths)))):
        raise InvalidSpec(f"--fix layers_per_stage={shown(lengths)}: {said_stages(model, request.runtime)}")
    stages = int(request.fixed.get("pp", 0)) * int(request.fixed.get("vpp", 1))
    if lengths is not None and stages and len(lengths) != stages:
        raise InvalidSpec(
            f"--fix layers_per_stage={shown(lengths)} has {len(lengths)} stages, and --fix pp and vpp make {stages}"
        )
    for pin in request.pins:
        if pin.last >= model.num_layers:
            raise InvalidSpec(f"--fix {pin}={shown(pin.value)}: {model.name} has layers 0 to {model.num_layers - 1}")


def _nearest_multiples(product: int, num_devices: int) -> str:
    below = num_devices // product * product
    return " and ".join(str(count) for count in (below, below + product) if count)


def _runtimes() -> list[Runtime]:
    from costmodel.catalog.runtimes import load_runtime, runtime_names

    return [load_runtime(name) for name in runtime_names()]


def _who(able: list[str]) -> str:
    return f"runtimes that do: {', '.join(able)}" if able else "no runtime of the catalog does"
