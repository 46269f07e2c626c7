"""Every spelling of a schedule's name, mapped to the one this project uses.

PyTorch's ``InterleavedZeroBubble`` with one stage a rank is the paper's ZB1P, that is ``zb-h1``.
"""

from __future__ import annotations

import re

from costmodel.schema.errors import UnknownName

NAMES = ("gpipe", "1f1b", "interleaved-1f1b", "zb-h1")
"""The canonical names."""

PYTORCH_NAMES = {
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "interleaved-1f1b": "Interleaved1F1B",
    "zb-h1": "InterleavedZeroBubble",
}
"""Canonical name -> the name that ``torch.distributed.pipelining.schedules.get_schedule_class`` takes, where it has
one.
"""

_SPOKEN = {"vpp": "interleaved-1f1b", "interleaved": "interleaved-1f1b", "zb1p": "zb-h1"}


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_CANONICAL = {_fold(name): name for name in NAMES}
_CANONICAL |= {_fold(torch_name): name for name, torch_name in PYTORCH_NAMES.items()}
_CANONICAL |= {_fold(spelling): name for spelling, name in _SPOKEN.items()}


def canonical_name(name: str) -> str:
    """``Schedule1F1B``, ``1F1B``, ``1f1b`` -> ``1f1b``: case and punctuation do not matter.

    Raises UnknownName for a name that no schedule here has.
    """
    folded = _fold(name)
    found = _CANONICAL.get(folded) or _CANONICAL.get(folded.removeprefix("schedule"))
    if found is None:
        raise UnknownName("schedule", name, NAMES)
    return found
