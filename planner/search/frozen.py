"""Where a model's frozen parts may run: before the pipeline, or in its bubbles for the next step."""

from __future__ import annotations

from math import gcd

from costmodel.schema.errors import InvalidSpec
from costmodel.schema.layout import Layout
from planner.request import Request
from planner.search.rules import Choice, common_heads


def frozen_choice(request: Request) -> Choice:
    """Before the pipeline, or in the bubbles of one that has any."""
    name = "frozen_fill"
    values = (0, 1) if can_fill(request) else (0,)
    return name, values, lambda t: (t[name] == 0) | ((t["pp"] > 1) & (frozen_heads(request) % t["tp"] == 0))


def can_fill(request: Request) -> bool:
    """Whether the runtime fills bubbles, and there is anything to fill those of equal ranks with."""
    alike = len(request.cluster.unlike_groups) == 1
    return bool(request.model.frozen_parts) and request.runtime.frozen_fill and alike


def check_frozen(request: Request, layout: Layout) -> None:
    """Raises InvalidSpec for a layout that fills bubbles where nothing can."""
    if not layout.frozen_fill:
        return
    if not can_fill(request):
        raise InvalidSpec(
            f"frozen_fill true: {request.runtime.name} runs no frozen parts of {request.model.name} in the bubbles of"
            f" {request.cluster.name}",
            "it takes a model with frozen parts, nodes of one kind and a runtime with frozen_fill",
        )
    heads = frozen_heads(request)
    if layout.pp == 1 or heads % layout.tp:
        raise InvalidSpec(
            f"frozen_fill true with pp {layout.pp} and tp {layout.tp}: the bubbles of two pipeline ranks or more are"
            f" filled, by parts whose {heads} heads tp divides"
        )


def frozen_heads(request: Request) -> int:
    """What tensor parallelism must divide in frozen parts; 0 without heads."""
    return gcd(*(common_heads(part.model) for part in request.model.frozen_parts))
