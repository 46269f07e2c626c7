"""Question: what the sidebar asks, as it was typed, and the request that it means."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from costmodel.schema.errors import ParlayError
from planner.request import Request, build_request


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
        config = _as_file(self.config, "config.json") if self.config else None
        cluster = _as_file(self.cluster, "cluster.toml") if self.cluster else None
        try:
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
        except ParlayError as error:
            for path in (config, cluster):
                if path is not None:
                    error.message = error.message.replace(str(path), f"the pasted {path.name}")
            raise


FIELD_OF_OPTION = {
    **{name: name for name in Question.__dataclass_fields__},
    "gpus_per_node": "gpus",
    "num_devices": "gpus",
    "schedule": "schedules",
    "time_limit": "time_limit_s",
}
"""The sidebar's field for what a sentence names first."""


NAMED = re.compile(r"--[a-z-]+|\bnum_devices\b|(?<=unknown )(?:model|gpu|precision|runtime|schedule)\b")
"""An option, or what a sentence of an unknown name is about."""


def field_of(error: ParlayError) -> str | None:
    """Which field of a Question an error is about, by what its sentence names first; None: no single one."""
    if "pasted config.json" in error.message:
        return "config"
    if "pasted cluster.toml" in error.message:
        return "cluster"
    for word in NAMED.findall(error.message.lower()):
        named = FIELD_OF_OPTION.get(word.removeprefix("--").replace("-", "_"))
        if named is not None:
            return named
    return None


def _words(typed: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in typed.replace("\n", ",").split(",") if part.strip())


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """For what was pasted: the planner reads files. Gone when the process ends."""
    return tempfile.TemporaryDirectory(prefix="parlay-")


def _as_file(text: str, name: str) -> Path:
    """The text as a file of that name, the same one for the same text."""
    path = Path(_folder().name) / hashlib.sha256(text.encode()).hexdigest()[:16] / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path
