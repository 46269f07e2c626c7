"""A layout as a person gives it - degrees on the command line or in a file - and the whole Layout it means."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from costmodel.schedules import SCHEDULES as FORMS
from costmodel.schema.errors import InvalidSpec, UnknownName
from costmodel.schema.layout import Layout
from costmodel.schema.runtime import Runtime
from planner.constraints import WORLD, schedule_name
from planner.schedules import SCHEDULES

RECOMPUTE = ("none", "selective", "full")


@dataclass(frozen=True)
class GivenLayout:
    """``degrees``: the fields of Layout that were given. ``schedule`` and ``recompute`` hold for every layer."""

    degrees: tuple[tuple[str, Any], ...] = ()
    given_schedule: str | None = None
    given_recompute: str | None = None

    @classmethod
    def read(cls, path: str) -> GivenLayout:
        """From JSON: a plan file, or an object of degrees with ``schedule`` and ``recompute`` beside them.

        Raises InvalidSpec when the file is neither; UnknownName for a key that is no part of a layout.
        """
        from planner.cli.files import name_of, plan_from, read_json

        data = read_json(path)
        if not isinstance(data, dict):
            raise InvalidSpec(f'{name_of(path)} holds no layout: it should be an object like {{"tp": 8, "pp": 4}}')
        if "schema_version" in data:
            plan = plan_from(data, path)
            policies = Counter(layer.recompute for layer in plan.layers)
            degrees = plan.layout.model_dump(exclude={"edp", "num_microbatches"})
            return cls(tuple(degrees.items()), plan.pipeline.schedule, policies.most_common(1)[0][0])
        known = (*Layout.model_fields, "edp", "schedule", "recompute")
        for key in data:
            if key not in known:
                raise UnknownName(f"key in {name_of(path)}", key, known)
        return cls().override(**{key: value for key, value in data.items() if key not in ("edp", "num_microbatches")})

    def override(self, **changes: Any) -> GivenLayout:
        """With every change that is not None in place. Raises UnknownName for a schedule or policy there is not."""
        schedule, recompute = changes.pop("schedule", None), changes.pop("recompute", None)
        if recompute is not None and str(recompute).lower() not in RECOMPUTE:
            raise UnknownName("kind of --recompute", str(recompute), RECOMPUTE)
        degrees = dict(self.degrees) | {key: value for key, value in changes.items() if value is not None}
        return replace(
            self,
            degrees=tuple(degrees.items()),
            given_schedule=schedule_name(str(schedule)) if schedule is not None else self.given_schedule,
            given_recompute=str(recompute).lower() if recompute is not None else self.given_recompute,
        )

    @property
    def schedule(self) -> str:
        """As given; else interleaved 1F1B where ranks hold several chunks, and 1F1B where they hold one."""
        return self.given_schedule or ("interleaved-1f1b" if dict(self.degrees).get("vpp", 1) > 1 else "1f1b")

    @property
    def recompute(self) -> str:
        return self.given_recompute or "none"

    @property
    def num_ranks(self) -> int:
        """How many ranks the given degrees alone make."""
        degrees = self._checked().model_dump()
        return math.prod(degrees[axis] for axis in WORLD)

    def complete(self, num_devices: int, global_batch_size: int, runtime: Runtime) -> Layout:
        """The whole layout on ``num_devices``: ``dp_shard`` takes what is left; where it is more than one, the highest
        ZeRO stage of the runtime; sequence parallelism unless the runtime never does it; as many chunks a rank as the
        schedule that was given needs.

        num_microbatches = global_batch_size / (dp · micro_batch_size).

        Raises InvalidSpec when the degrees do not multiply to ``num_devices``, the batch does not divide, or the
        schedule is an order that was found for one plan.
        """
        degrees = dict(self.degrees)
        if self.schedule not in FORMS:
            raise InvalidSpec(
                f"schedule {self.schedule!r}: the plan's order of passes was found, and one must be named here",
                "add --schedule; plan show, explain and run take the order from the plan's file",
            )
        if self.given_schedule is not None:
            degrees.setdefault("vpp", SCHEDULES[self.given_schedule].vpp)
        ranks = self.num_ranks
        if "dp_shard" not in degrees and num_devices % ranks == 0:
            degrees["dp_shard"] = num_devices // ranks
            ranks = num_devices
        if ranks != num_devices:
            raise InvalidSpec(
                f"the layout makes {ranks} ranks, and there are {num_devices} GPUs",
                f"tp · pp · cp_ring · cp_ulysses · dp_replicate · dp_shard must be {num_devices}",
            )
        if "zero_stage" not in degrees and degrees.get("dp_shard", 1) > 1:
            degrees["zero_stage"] = max(runtime.state.zero_stages)
        if "sequence_parallel" not in degrees and runtime.sequence_parallel == "never":
            degrees["sequence_parallel"] = degrees.get("tp", 1) == 1
        degrees.setdefault("vocab_parallel", FORMS[self.schedule].barriers > 0)
        layout = Layout.load(degrees, "layout")
        per_microbatch = layout.dp * layout.micro_batch_size
        if global_batch_size % per_microbatch:
            raise InvalidSpec(
                f"--global-batch-size {global_batch_size} does not divide into {layout.dp} data-parallel ranks "
                f"with micro-batches of {layout.micro_batch_size}",
                f"a multiple of {per_microbatch} works",
            )
        return layout.model_copy(update={"num_microbatches": global_batch_size // per_microbatch})

    def _checked(self) -> Layout:
        """Each degree by itself must be possible. What depends on all of them together waits for ``complete``."""
        alone = {key: value for key, value in self.degrees if key not in ("ep", "etp")}
        return Layout.load(alone, "layout")
