"""What was pasted or uploaded, as files: the planner reads files, and names them where they are wrong."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from costmodel.schema.errors import ParlayError


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Gone when the process ends."""
    return tempfile.TemporaryDirectory(prefix="parlay-")


def as_file(content: bytes, name: str) -> Path:
    """The content as a file of that name, the same one for the same content."""
    path = Path(_folder().name) / hashlib.sha256(content).hexdigest()[:16] / Path(name).name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return path


@contextmanager
def naming(*files: tuple[Path | None, str]) -> Iterator[None]:
    """Errors from within call each file by its name, not by where it was put. Raises what is raised within."""
    try:
        yield
    except ParlayError as error:
        for path, name in files:
            if path is not None:
                error.message = error.message.replace(str(path), name)
                error.hint = error.hint and error.hint.replace(str(path), name)
        raise
