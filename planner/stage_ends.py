"""Stages that hold an end of the model and no layer: the embedding alone, or the head and the loss."""

from __future__ import annotations

from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.model import ModelSpec
from costmodel.schema.runtime import Runtime


def fewest_at_ends(model: ModelSpec, runtime: Runtime, whole: bool = True) -> int:
    """Layers that the first and the last of several stages hold at least: none where either end may stand alone, or 1.

    ``whole``: each end is whole, on its stage. Ends that are split over all ranks make no stages of their own, and a
    model that lacks one keeps layers at both, as even stages may leave either empty.
    """
    has_both = model.vocab_size > 0 and model.has_head
    return int(not (runtime.ends_without_layers and runtime.uneven_stages and whole and has_both))


def fewest_by_stage(model: ModelSpec, runtime: Runtime, stages: int) -> list[int]:
    """Layers that each of so many stages holds at least."""
    at_ends = fewest_at_ends(model, runtime)
    return [at_ends, *[1] * (stages - 2), at_ends] if stages > 1 else [1]


def most_stages(model: ModelSpec, runtime: Runtime, whole: bool = True) -> int:
    """Stages that the model's layers and its ends are enough for."""
    return model.num_layers + 2 - 2 * fewest_at_ends(model, runtime, whole)


def check_stages(model: ModelSpec, runtime: Runtime, pp: int, vpp: int, schedule: str) -> None:
    """Raises InvalidSpec where there are more stages than the model's layers and ends fill."""
    most = most_stages(model, runtime, SCHEDULES[schedule].barriers == 0)
    if pp * vpp > most:
        raise InvalidSpec(
            f"pp {pp} · vpp {vpp} = {pp * vpp} stages: {said_stages(model, runtime)}", f"{most} stages at most"
        )


def said_stages(model: ModelSpec, runtime: Runtime) -> str:
    """What a stage has to hold, for the sentence that refuses more of them."""
    but = "" if fewest_at_ends(model, runtime) else " but the first and the last"
    return f"{model.name} has {model.num_layers} layers, and every stage{but} needs one"
