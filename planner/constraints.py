"""What the user takes out of the search's hands: degrees fixed, techniques forbidden."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from costmodel.schema.errors import Infeasible, InvalidSpec, UnknownName
from costmodel.schema.runtime import Runtime

DEGREES = ("tp", "pp", "vpp", "cp_ring", "cp_ulysses", "ep", "etp", "dp_replicate", "dp_shard", "micro_batch_size")
"""Keys of ``--fix`` whose value is a whole number from 1."""

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "zero_stage": ("0", "1", "2", "3"),
        "recompute": ("none", "selective", "full"),
        "sequence_parallel": ("true", "false"),
    }
)
"""Keys of ``--fix`` with a few values each. ``schedule`` is the one key that neither table holds."""

SYNTHESIZED = "auto"
"""What stands for an order of passes that is found rather than named."""

WORLD = ("tp", "pp", "cp_ring", "cp_ulysses", "dp_replicate", "dp_shard")
"""The degrees whose product is the number of devices."""

FORBIDDABLE: Mapping[str, str] = MappingProxyType(
    {
        "tp": "tensor parallelism",
        "pp": "pipeline parallelism",
        "vpp": "several model chunks on a rank",
        "cp_ring": "ring context parallelism",
        "cp_ulysses": "all-to-all context parallelism",
        "mixed_context_parallel": "groups of unlike context-parallel degree (--lengths)",
        "ep": "expert parallelism",
        "etp": "tensor parallelism inside experts",
        "dp_replicate": "replicated data parallelism",
        "dp_shard": "sharded data parallelism",
        "sequence_parallel": "sequence parallelism",
        "recompute": "every kind of recomputation",
        "selective": "selective recomputation",
        "full": "full recomputation",
        "optimizer_offload": "optimizer state on the host",
        "activation_offload": "saved activations on the host",
        "zero1": "sharded optimizer state",
        "zero2": "sharded gradients",
        "zero3": "sharded parameters",
    }
)
"""Techniques that ``--forbid`` takes out of the space, beside every schedule's name."""

ALLOWABLE: Mapping[str, str] = MappingProxyType(
    {
        "int8_optimizer": "the optimizer's moments in 8 bits, block by block",
        "fp8_optimizer": "the optimizer's moments in FP8 (COAT)",
        "low_rank_optimizer": "the optimizer's moments of a low-rank projection of the gradient (APOLLO)",
        "int8_activations": "saved activations in 8 bits (Mesa, COAT)",
    }
)
"""Techniques that change what is computed: in the space only where ``--allow`` names them."""


def parse_allowed(items: Iterable[str]) -> frozenset[str]:
    """Names of lossy techniques, in canonical spelling. Raises UnknownName."""
    names = [item.lower().replace("-", "_") for item in _split(items)]
    for name in names:
        if name not in ALLOWABLE:
            raise UnknownName("technique in --allow", name, tuple(ALLOWABLE))
    return frozenset(names)


def parse_fixed(items: Iterable[str]) -> dict[str, int | str]:
    """``["tp=8,pp=4", "recompute=full"]`` -> {"tp": 8, "pp": 4, "recompute": "full"}.

    ``zero_stage`` becomes an int, ``sequence_parallel`` a bool, the rest of the choices stay text.

    Raises InvalidSpec for an item without ``=``, a value of the wrong kind or a key given twice with two values;
    UnknownName for a key that is no part of a layout.
    """
    fixed: dict[str, int | str] = {}
    for item in _split(items):
        key, equals, text = item.partition("=")
        key, text = key.strip().replace("-", "_"), text.strip().lower()
        if not equals or not text:
            raise InvalidSpec(f"--fix {item!r} is not KEY=VALUE", "write it like --fix tp=8,pp=4")
        value = _value(key, text)
        if fixed.setdefault(key, value) != value:
            raise InvalidSpec(f"--fix gives {key} twice, as {fixed[key]} and as {value}", "keep one of them")
    return fixed


def _value(key: str, text: str) -> int | str:
    if key in DEGREES:
        if not text.isdecimal() or int(text) < 1:
            raise InvalidSpec(f"--fix {key}={text}: {key} must be a whole number from 1", f"like --fix {key}=2")
        return int(text)
    if key in CHOICES:
        if text not in CHOICES[key]:
            raise InvalidSpec(f"--fix {key}={text}: {key} must be one of {', '.join(CHOICES[key])}")
        return int(text) if key == "zero_stage" else text == "true" if key == "sequence_parallel" else text
    if key == "schedule":
        return schedule_name(text)
    raise UnknownName("key of --fix", key, (*DEGREES, *CHOICES, "schedule"))


def check_world(fixed: Mapping[str, int | str], num_devices: int) -> None:
    """The fixed degrees must leave a whole number of ranks for the free ones. Raises Infeasible."""
    given = {key: int(fixed[key]) for key in WORLD if key in fixed}
    product = 1
    for degree in given.values():
        product *= degree
    if num_devices % product:
        shown = " · ".join(f"{key} {degree}" for key, degree in given.items())
        raise Infeasible(
            f"--fix asks for {shown} = {product} ranks, which does not divide the {num_devices} devices",
            hint=f"nearest counts of devices that work: {_nearest_multiples(product, num_devices)}",
        )


def check_agreement(fixed: Mapping[str, int | str], forbidden: frozenset[str], schedules: Iterable[str]) -> None:
    """--fix may ask neither for what --forbid takes away nor for a schedule that --schedule leaves out.

    ``forbidden`` and ``schedules`` in canonical spelling; no ``schedules`` means any. Raises InvalidSpec.
    """
    for key, value in fixed.items():
        wanted = {str(value)} if key in ("recompute", "schedule") else {key} if int(value) > 1 else set()
        if key == "zero_stage":
            wanted = {f"zero{value}"} if value else set()
        elif key == "sequence_parallel":
            wanted = {key} if value else set()
        elif key == "recompute" and value != "none":
            wanted.add("recompute")
        for name in sorted(wanted & forbidden):
            raise InvalidSpec(f"--fix {key}={value} asks for what --forbid {name} takes away", "keep one of them")
    only = tuple(schedules)
    if only and fixed.get("schedule", only[0]) not in only:
        raise InvalidSpec(
            f"--fix schedule={fixed['schedule']} is not among --schedule {','.join(only)}", "keep one of them"
        )


def _nearest_multiples(product: int, num_devices: int) -> str:
    below = num_devices // product * product
    return " and ".join(str(count) for count in (below, below + product) if count)


def parse_forbidden(items: Iterable[str]) -> frozenset[str]:
    """Names of techniques and schedules, in canonical spelling (``cp-ring`` -> ``cp_ring``). Raises UnknownName."""
    names = set()
    for item in _split(items):
        name = item.lower().replace("-", "_")
        if name in FORBIDDABLE:
            names.add(name)
            continue
        try:
            names.add(schedule_name(item))
        except UnknownName:
            raise UnknownName("technique in --forbid", item, (*FORBIDDABLE, *_schedules())) from None
    return frozenset(names)


def schedule_name(text: str) -> str:
    """The canonical name of a pipeline schedule, from any known spelling. Raises UnknownName; InvalidSpec for ``auto``,
    which names none.
    """
    from planner.schedules.names import canonical_name

    if text.strip().lower() == SYNTHESIZED:
        raise InvalidSpec(
            f"schedule {text!r} stands for an order yet to be found, and one schedule must be named here",
            "plan --schedule auto and plan schedule auto find one",
        )
    return canonical_name(text)


def check_schedules(asked: Iterable[str], fixed: Mapping[str, int | str], runtime: Runtime) -> None:
    """The runtime must have every schedule asked for, and a fixed one must exist at the fixed ``pp`` and ``vpp``.

    Raises InvalidSpec.
    """
    from planner.schedules import SCHEDULES

    alone = fixed.get("schedule")
    for name in dict.fromkeys((*asked, *([str(alone)] if alone else []))):
        if name not in runtime.schedules:
            raise InvalidSpec(f"schedule {name!r}: the runtime {runtime.name} has {', '.join(runtime.schedules)}")
    if alone:
        kind = SCHEDULES[str(alone)]
        ranks = [int(fixed["pp"])] if "pp" in fixed else range(1, 5)
        chunks = [int(fixed["vpp"])] if "vpp" in fixed else [kind.vpp]
        # No schedule needs more than two micro-batches.
        if not any(kind.allows(pp, 2, vpp) for pp in ranks for vpp in chunks):
            degrees = ", ".join(f"{key}={fixed[key]}" for key in ("pp", "vpp") if key in fixed)
            raise InvalidSpec(f"--fix {degrees}: schedule {kind.name!r} needs {kind.rule}")


def _schedules() -> tuple[str, ...]:
    from planner.schedules import SCHEDULES

    return tuple(SCHEDULES)


def _split(items: Iterable[str]) -> list[str]:
    return [part.strip() for item in items for part in item.split(",") if part.strip()]
