"""Question: what the sidebar asks, as it was typed, and the request that it means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from costmodel.schema.errors import ParlayError, SolverTimeout
from planner.request import Request, build_request
from ui.pasted import as_file, naming

PASTED_CONFIG, PASTED_CLUSTER = "the pasted config.json", "the pasted cluster.toml"

PASTED_MODEL = "pasted-model"
"""What a pasted model is called that does not say its own name."""


@dataclass(frozen=True)
class Question:
    """One view of the dashboard. None and empty texts mean the planner's own default.

    ``config``: a pasted Hugging Face ``config.json``, in place of ``model``. ``cluster``: an edited cluster file's
    text, in place of ``gpu``. ``fix``, ``limit``, ``forbid``: as on the command line, separated by commas.
    ``tokens``, ``price``: of the whole run, as on the command line.
    """

    model: str = "llama-70b"
    config: str = ""
    gpu: str = "h100"
    gpus: int = 64
    cluster: str = ""
    seq_len: int | None = None
    global_batch_size: int | None = None
    precision: str | None = None
    runtime: str | None = None
    compile: bool = False
    fix: str = ""
    limit: str = ""
    forbid: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    fit_probability: float = 0.95
    time_limit_s: float = 30.0
    tokens: str = ""
    price: str = ""

    def request(self, gpus: int | None = None) -> Request:
        """The planner's request, on ``gpus`` devices where another number is asked.

        Raises what ``build_request`` raises, in words that fit what was typed or pasted.
        """
        config = as_file(self.config.encode(), f"{PASTED_MODEL}.json") if self.config else None
        cluster = as_file(self.cluster.encode(), "cluster.toml") if self.cluster else None
        with naming((config, PASTED_CONFIG), (cluster, PASTED_CLUSTER)):
            return build_request(
                self.model if config is None else str(config),
                gpus or (self.gpus if cluster is None else None),
                gpu=self.gpu if cluster is None else None,
                cluster=cluster,
                seq_len=self.seq_len,
                global_batch_size=self.global_batch_size,
                precision=self.precision,
                runtime=self.runtime,
                compile=self.compile,
                fix=_words(self.fix),
                limit=_words(self.limit),
                forbid=self.forbid,
                allow=self.allow,
                schedules=self.schedules,
                fit_probability=self.fit_probability,
                time_limit_s=self.time_limit_s,
                top=8,
            )


FIELD_OF_OPTION = {
    **{name: name for name in Question.__dataclass_fields__},
    "gpus_per_node": "gpus",
    "num_devices": "gpus",
    "schedule": "schedules",
    "time_limit": "time_limit_s",
}
"""The sidebar's field for what a sentence names first."""


NAMED = re.compile(r"--[a-z-]+|\bnum_devices\b|(?<=unknown )(?:model|gpu|precision|runtime|schedule)\b|^schedule(?= ')")
"""An option, or what a sentence of a name is about."""


def field_of(error: ParlayError) -> str | None:
    """Which field of a Question an error is about, by what its sentence names first; None: no single one."""
    if isinstance(error, SolverTimeout):
        return "time_limit_s"
    for pasted, field in ((PASTED_CONFIG, "config"), (PASTED_MODEL, "config"), (PASTED_CLUSTER, "cluster")):
        if pasted in f"{error.message} {error.hint}":
            return field
    for word in NAMED.findall(error.message.lower()):
        named = FIELD_OF_OPTION.get(word.removeprefix("--").replace("-", "_"))
        if named is not None:
            return named
    return None


def _words(typed: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in typed.replace("\n", ",").split(",") if part.strip())
