"""Numbers of GPUs as people write them: 64, 8,16,24, 8..1024, 8..64:+8."""

from __future__ import annotations

import re

from costmodel.schema.errors import InvalidSpec

MOST_COUNTS = 256
"""How many numbers of GPUs one question may have."""

_RANGE = re.compile(r"(\d+)\.\.(\d+)(?::([x+])(\d+))?")

FORMS = "like 64, 8,16,24, 8..1024 (doubling), 8..1024:x4 or 8..64:+8"


def parse_counts(text: str) -> tuple[int, ...]:
    """The numbers, ascending and each once. A range starts at its first number, doubles unless it says otherwise, and
    includes its last number. Raises InvalidSpec."""
    counts: set[int] = set()
    for part in (piece.strip() for piece in text.split(",")):
        counts.update(_of_part(part))
        if len(counts) > MOST_COUNTS:
            raise InvalidSpec(f"--gpus {text}: names more than {MOST_COUNTS} numbers of GPUs", "take larger steps")
    return tuple(sorted(counts))


def _of_part(part: str) -> list[int]:
    if re.fullmatch(r"-?\d+", part):
        number = int(part)
        if number < 1:
            raise InvalidSpec(f"--gpus {part}: must be a whole number from 1")
        return [number]
    found = _RANGE.fullmatch(part.replace(" ", ""))
    if found is None:
        raise InvalidSpec(f"--gpus {part}: must be a whole number, a list or a range of them", FORMS)
    first, last, step = int(found[1]), int(found[2]), int(found[4] or 2)
    adds = found[3] == "+"
    if first < 1 or last < first or step < (1 if adds else 2):
        raise InvalidSpec(f"--gpus {part}: must rise from a number of 1 or more", FORMS)
    counts: list[int] = []
    at = first
    while at < last and len(counts) <= MOST_COUNTS:
        counts.append(at)
        at = at + step if adds else at * step
    return [*counts, last]
