"""``plan --lengths``: what the file and the other options say, and the answer as a report or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.schema.errors import InvalidSpec

if TYPE_CHECKING:
    from costmodel.schema.lengths import LengthPlan
    from planner.decisions.question import Question
    from planner.lengths import Histogram
    from planner.request import Request


def read_lengths(path: Path, model: str, seq_len: int | None, global_batch_size: int | None) -> Histogram:
    """The histogram in ``path``, within what the model was made for. Raises InvalidSpec, also for options that say
    otherwise.
    """
    from costmodel.catalog.models import load_model
    from planner.lengths import read_histogram

    for option, value in (("--seq-len", seq_len), ("--global-batch-size", global_batch_size)):
        if value is not None:
            raise InvalidSpec(f"{option} {value}: --lengths {path} already says which sequences a step has")
    return read_histogram(path, load_model(model).max_position_embeddings)


def answer_lengths(
    ask: Callable[[int | None], Request],
    gpus: str | None,
    question: Question,
    histogram: Histogram,
    unused: Mapping[str, bool],
    *,
    out: Path | None,
    plot: Path | None,
    json: bool,
) -> None:
    """Plan; write the file, if asked for; print JSON or the report. ``ask`` gives the request for a number of GPUs;
    ``unused``: options without a meaning here, and whether they were given.

    Raises Infeasible, InvalidSpec.
    """
    from planner.decisions.counts import parse_counts
    from planner.lengths import find_length_plan

    for option, given in unused.items():
        if given:
            raise InvalidSpec(f"{option}: --lengths plans for one step's sequences, without it")
    counts = None if gpus is None else parse_counts(gpus)
    if counts is not None and len(counts) > 1:
        raise InvalidSpec(f"--gpus {gpus}: --lengths plans for one number of GPUs")
    if plot is not None:
        raise InvalidSpec(f"--plot {plot}: --lengths plans one step, which is no curve")
    if question.asked:
        raise InvalidSpec("--lengths plans one step: it answers no question of tokens, deadlines, prices or failures")
    deliver_lengths(find_length_plan(ask(None if counts is None else counts[0]), histogram), out=out, json=json)


def lengths_from(data: Any, path: str) -> LengthPlan | None:
    """A LengthPlan from a JSON document that was read from ``path``; None where it is something else.

    Raises InvalidSpec for a malformed one.
    """
    from costmodel.schema.lengths import DOCUMENT, LengthPlan
    from planner.cli.files import name_of

    if not isinstance(data, dict) or data.get("document") != DOCUMENT:
        return None
    return LengthPlan.load(data, name_of(path))


def deliver_lengths(plan: LengthPlan, *, out: Path | None, json: bool) -> None:
    """Write the file, if asked for; print JSON or the report. Raises InvalidSpec (unwritable file)."""
    from planner.cli.files import write_file

    text = plan.model_dump_json(indent=1) + "\n"
    if out is not None:
        write_file(out, text)
    if json:
        print(text, end="")
        return
    from planner.report.console import make_console
    from planner.report.lengths import print_lengths

    print_lengths(plan, make_console())
