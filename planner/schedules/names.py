"""Every spelling of a schedule's name, mapped to the one this project uses.

PyTorch's ``InterleavedZeroBubble`` with one stage a rank is the paper's ZB1P, that is ``zb-h1``.
"""

from __future__ import annotations

import re

from costmodel.schema.errors import UnknownName

DEFERRED = "+2bp"
"""What a name ends with when the schedule's weight gradients are put off by 2BP."""

GATHERED = "+fsdp"
"""What a name ends with when the order says where sharded parameters are gathered and gradients reduced."""

_FULL_BACKWARD = ("gpipe", "1f1b", "interleaved-1f1b", "breadth-first", "hanayo", "chimera", "bitpipe")

_PUBLISHED = (
    *_FULL_BACKWARD,
    "zb-h1",
    "zb-h2",
    "zb-v",
    "v-half",
    "v-min",
    "dualpipe",
    "dualpipe-v",
    "zeropp",
    "1f1b-vocab-1",
    "1f1b-vocab-2",
)

NAMES = (*_PUBLISHED, f"breadth-first{GATHERED}", *(name + DEFERRED for name in _FULL_BACKWARD))
"""The canonical names."""

PYTORCH_NAMES = {
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "interleaved-1f1b": "Interleaved1F1B",
    "zb-h1": "InterleavedZeroBubble",
    "breadth-first": "LoopedBFS",
    "dualpipe-v": "DualPipeV",
    "zb-v": "ZBVZeroBubble",
}
"""Canonical name -> the name that ``torch.distributed.pipelining.schedules.get_schedule_class`` takes, where it has
one.
"""

_SPOKEN = {
    "vpp": "interleaved-1f1b",
    "interleaved": "interleaved-1f1b",
    "zb1p": "zb-h1",
    "bfs": "breadth-first",
    "layered gradient accumulation": "breadth-first",
    "wave": "hanayo",
    "cut-in-half": "dualpipe-v",
    "zb2p": "zb-h2",
    "v-zb": "zb-v",
}


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_CANONICAL = {_fold(name): name for name in _PUBLISHED}
_CANONICAL |= {_fold(torch_name): name for name, torch_name in PYTORCH_NAMES.items()}
_CANONICAL |= {_fold(spelling): name for spelling, name in _SPOKEN.items()}


def canonical_name(name: str) -> str:
    """``Schedule1F1B``, ``1F1B``, ``1f1b`` -> ``1f1b``; ``Interleaved1F1B+2BP`` -> ``interleaved-1f1b+2bp``: case and
    punctuation do not matter.

    Raises UnknownName for a name that no schedule here has.
    """
    folded, suffix = _fold(name), ""
    for ending in (DEFERRED, GATHERED):
        if folded.endswith(_fold(ending)):
            folded, suffix = folded.removesuffix(_fold(ending)), ending + suffix
    found = _CANONICAL.get(folded) or _CANONICAL.get(folded.removeprefix("schedule"))
    if found is None or found + suffix not in NAMES:
        raise UnknownName("schedule", name, NAMES if "+" in name else _PUBLISHED, "plan schedule --help lists all")
    return found + suffix
