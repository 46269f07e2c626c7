"""Stages that hold an end of the model and no layer: the embedding alone, or the head and the loss."""

from __future__ import annotations

from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.model import ModelSpec
from costmodel.schema.runtime import Runtime


def fewest_at_ends(model: ModelSpec, runtime: Runtime, whole: bool = True) -> tuple[int, int]:
    """Layers that the first and the last of several stages hold at least; every other stage holds 1.

    ``whole``: each end is whole, on its stage. An end that is split over all ranks, or that a model does not have,
    makes no stage of its own.
    """
    alone = runtime.ends_without_layers and runtime.uneven_stages and whole
    return int(not (alone and model.vocab_size > 0)), int(not (alone and model.has_head))


def most_stages(model: ModelSpec, runtime: Runtime, whole: bool = True) -> int:
    """Stages that the model's layers and its ends are enough for."""
    return model.num_layers + 2 - sum(fewest_at_ends(model, runtime, whole))


def check_stages(model: ModelSpec, runtime: Runtime, pp: int, vpp: int, schedule: str) -> None:
    """Raises InvalidSpec where there are more stages than the model's layers and ends fill."""
    most = most_stages(model, runtime, SCHEDULES[schedule].barriers == 0)
    if pp * vpp > most:
        raise InvalidSpec(
            f"pp {pp} · vpp {vpp} = {pp * vpp} stages: {said_stages(model, runtime)}", f"{most} stages at most"
        )


def said_stages(model: ModelSpec, runtime: Runtime) -> str:
    """What a stage has to hold, for the sentence that refuses more of them."""
    alone = [name for name, least in zip(("first", "last"), fewest_at_ends(model, runtime), strict=True) if not least]
    but = f" but the {' and the '.join(alone)}" if alone else ""
    return f"{model.name} has {model.num_layers} layers, and every stage{but} needs one"
