"""A plan in sentences, for someone who has not met the field's abbreviations."""

from __future__ import annotations

from costmodel.schema.errors import ParlayError
from costmodel.schema.plan import Plan
from planner.report.layers import activations_words, alone_words
from planner.report.line import recompute_counts
from planner.report.units import plural
from planner.state_words import state_words

MEANINGS = {
    "Step": "Time of one training step: all micro-batches forward and backward, and the optimizer's update.",
    "Tokens/s a GPU": "Tokens that the whole cluster trains on in a second, over its number of GPUs.",
    "MFU": "Model FLOPs utilization: what the model's own arithmetic would take at the datasheet's peak rate, over what"
    " the step takes. Recomputation does not count as work.",
    "GPU-hours": "Number of GPUs times the hours of the run.",
    "P(fits)": "Probability that the step runs without going out of memory.",
    "Bubble": "Share of the time from first pass to last in which pipeline ranks wait.",
    "Stages a rank": "Pieces of the model that each pipeline rank holds.",
}
"""Figures and columns by the name they are shown under -> what they are."""

_SHARED = (
    "each with a whole copy of the model's state",
    "sharing out the optimizer's state (ZeRO-1)",
    "sharing out optimizer state and gradients (ZeRO-2)",
    "sharing out optimizer state, gradients and parameters (ZeRO-3)",
)


def in_sentences(plan: Plan) -> list[str]:
    """What is split over what, outermost first; then what a GPU works through, and what it keeps of it."""
    layout, layers = plan.layout, plan.layers
    said = []
    if layout.pp > 1:
        lengths = [length for length in plan.pipeline.layers_per_stage if length]
        each = plural(lengths[0], "layer") if len(set(lengths)) == 1 else f"{min(lengths)} to {max(lengths)} layers"
        chunks = f", {layout.vpp} of them a rank" if layout.vpp > 1 else ""
        alone = f", {alone_words(plan)}" if alone_words(plan) else ""
        said.append(
            f"The model is cut into a pipeline of {plural(layout.pp * layout.vpp, 'stage')} of {each}{chunks}{alone};"
            f" their passes follow the schedule {plan.pipeline.schedule}."
        )
    if layout.tp > 1:
        beside = ", and so is the sequence between them" if layout.sequence_parallel else ""
        said.append(f"The products of each layer are split over {layout.tp} GPUs (tensor parallel){beside}.")
    if layout.cp > 1:
        ways = {"in a ring": layout.cp_ring, "by all-to-all": layout.cp_ulysses}
        how = " × ".join(f"{degree} {way}" for way, degree in ways.items() if degree > 1)
        said.append(f"Every sequence is split over {layout.cp} GPUs (context parallel: {how}).")
    if layout.ep * layout.etp > 1:
        inside = f", each of them split over {layout.etp}" if layout.etp > 1 else ""
        said.append(f"The experts of a layer are spread over {layout.ep} groups of GPUs (expert parallel){inside}.")
    if layout.dp > 1:
        said.append(f"{layout.dp} ranks work on different sequences (data parallel), {_SHARED[layout.zero_stage]}.")
    said += [f"Beside that: {', '.join(words)}." for words in [state_words(layout)] if words]
    said.append(
        f"A rank takes {plural(layout.num_microbatches, 'micro-batch')} of"
        f" {plural(layout.micro_batch_size, 'sequence')} a step."
    )
    said.append(_recomputed(plan))
    kept = activations_words(layers)
    return said + ([f"{kept[0].upper()}{kept[1:]}."] if kept else [])


def _recomputed(plan: Plan) -> str:
    counts = recompute_counts(plan)
    if set(counts) == {"none"}:
        return "Nothing is recomputed in the backward."
    some = " and ".join(f"{number} in {_HOW[policy]}" for policy, number in counts.most_common() if policy != "none")
    return f"Of {len(plan.layers)} layers the backward recomputes {some}."


_HOW = {"selective": "part (selective)", "full": "full"}


def spanned(low: str, high: str) -> str:
    """``143 – 217 days`` of ``143 days`` and ``217 days``: a unit that both share is said once."""
    first, second = low.split(" "), high.split(" ")
    if len(first) == len(second) == 2 and first[1] == second[1]:
        return f"{first[0]} – {high}"
    return f"{low.removesuffix('%')} – {high}" if low.endswith("%") and high.endswith("%") else f"{low} – {high}"


def said(error: ParlayError) -> str:
    """An error's sentence with its hint, free of the command line's dashes."""
    return plain(error.message if error.hint is None else f"{error.message} – {error.hint}")


def plain(sentence: str) -> str:
    """The planner's sentence without the dashes of options: its fields stand on the page."""
    return sentence.replace("--", "")
