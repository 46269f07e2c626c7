"""Plans in and out of files: ``-`` is standard input or output, and what is written appears whole or not at all."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.files import write_whole

if TYPE_CHECKING:
    from costmodel.schema.plan import Plan


def read_text(path: str) -> str:
    """The file's text, or standard input's for ``-``. Raises InvalidSpec when it cannot be read as text."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidSpec(
            f"there is no file {path}", "write a plan with: plan --model NAME --gpus N --out FILE"
        ) from None
    except UnicodeDecodeError:
        raise InvalidSpec(f"{name_of(path)} is not a text file") from None
    except OSError as error:
        raise InvalidSpec(f"cannot read {name_of(path)}: {error.strerror}") from None


def read_json(path: str) -> Any:
    """The JSON document in a file. Raises InvalidSpec, saying where, when it is malformed or cut short."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" starting at")
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidSpec(
            f"{name_of(path)} is not whole JSON: {what} at {where}", "it may be cut short: write it again"
        ) from None
    except RecursionError:
        raise InvalidSpec(f"{name_of(path)} nests its JSON deeper than any plan or layout does") from None


def read_plan(path: str) -> Plan:
    """A plan file. Raises InvalidSpec for anything that is not one, another schema version included."""
    return plan_from(read_json(path), path)


def plan_from(data: Any, path: str) -> Plan:
    """A Plan from a JSON document that was read from ``path``."""
    from costmodel.schema.plan import SCHEMA_VERSION, Plan

    version = data.get("schema_version") if isinstance(data, dict) else None
    if version is None:
        raise InvalidSpec(f"{name_of(path)} is no plan: it has no schema_version", "plans come from: plan … --out FILE")
    if version != SCHEMA_VERSION:
        raise InvalidSpec(
            f"{name_of(path)} has schema_version {version!r}; this version of parlay reads {SCHEMA_VERSION}",
            "plan again with this version, or read it with the version that wrote it",
        )
    return Plan.load(data, name_of(path))


def name_of(path: str) -> str:
    return "standard input" if path == "-" else path


def check_writable(path: Path | None) -> None:
    """Find out before the work, not after it, that the result cannot be written. Raises InvalidSpec."""
    if path is None:
        return
    folder = path.parent
    if path.is_dir():
        raise InvalidSpec(f"cannot write {path}: it is a folder", f"name a file in it, like {path / 'plan.json'}")
    if not folder.is_dir():
        raise InvalidSpec(f"cannot write {path}: there is no folder {folder}", f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise InvalidSpec(f"cannot write {path}: the folder {folder} is not writable")


def write_file(path: Path, content: str | bytes) -> None:
    """Write the file whole or not at all. Raises InvalidSpec when it cannot be written."""
    check_writable(path)
    try:
        write_whole(path, content)
    except OSError as error:
        raise InvalidSpec(f"cannot write {path}: {error.strerror}") from None


def plan_json(plan: Plan) -> str:
    """The plan file's text."""
    return plan.model_dump_json(indent=1) + "\n"
