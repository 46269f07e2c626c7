"""Pipelines in closed form: how many micro-batches a rank keeps alive, and how long a step takes.

To bound, rank and fit. Every figure that a user sees comes from the event simulator.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from costmodel.layouts import SCHEDULE_CODES, BoolColumn, Column, IntColumn, Layouts
from costmodel.ops import Setting
from costmodel.schedule_form import Form, ScheduleForm, nothing
from costmodel.schedules import SCHEDULES

FORMS: tuple[ScheduleForm, ...] = tuple(SCHEDULES[name] for name in SCHEDULE_CODES)
GPIPE, ONE_F_ONE_B, INTERLEAVED, ZB_H1 = (
    SCHEDULE_CODES.index(name) for name in ("gpipe", "1f1b", "interleaved-1f1b", "zb-h1")
)

_COPIES = np.array([form.copies for form in FORMS], np.float64)
_ZIGZAG = np.array([form.placement == "zigzag" for form in FORMS])
_SPLITS = np.array([form.splits_backward for form in FORMS])
_FORWARDS_FIRST = np.array([form.forwards_first for form in FORMS])
_SLACK = np.array([form.slack for form in FORMS])
_TRIPLED = np.array([form.tripled for form in FORMS])
_FILL = np.array([form.fill for form in FORMS])
_BARRIERS = np.array([form.barriers for form in FORMS])
_CROSSINGS = np.array([form.crossings for form in FORMS])


def count_copies(layouts: Layouts) -> Column:
    """[n] whole models that run through a layout's ranks; a micro-batch crosses one of them."""
    return _COPIES[layouts.schedule]


def placement_codes(layouts: Layouts) -> IntColumn:
    """[n] equal where stages of equal pp and vpp, and the model's ends, lie on the same ranks."""
    splits, copies = _BARRIERS[layouts.schedule] > 0, _COPIES[layouts.schedule].astype(np.int64)
    return np.asarray(4 * splits + 2 * copies + _ZIGZAG[layouts.schedule])


def count_barriers(layouts: Layouts) -> IntColumn:
    """[n] collectives over all ranks between a micro-batch's last forward and first backward; 0: whole ends."""
    return np.asarray(_BARRIERS[layouts.schedule])


def splits_backward(layouts: Layouts) -> BoolColumn:
    """[n] whether input and weight gradients are passes of their own."""
    return np.asarray(_SPLITS[layouts.schedule])


def keeps_logits(layouts: Layouts) -> BoolColumn:
    """[n] whether the last stage runs every forward before its first backward."""
    return np.asarray(_FORWARDS_FIRST[layouts.schedule])


def estimate_in_flight(layouts: Layouts, rank: IntColumn) -> Column:
    """[n, S] micro-batches whose activations rank r holds at once, in units of all of the rank's layers of one copy."""
    return _by_schedule(layouts, rank, [form.in_flight for form in FORMS])


def estimate_least_in_flight(layouts: Layouts, rank: IntColumn) -> Column:
    """[n, S] what no order of the schedule keeps less than; ``estimate_in_flight`` where that is exact."""
    return _by_schedule(layouts, rank, [form.least_in_flight or form.in_flight for form in FORMS])


def estimate_pending(layouts: Layouts, rank: IntColumn) -> Column:
    """[n, S] micro-batches between input gradient and weight gradient on rank r, in the same units."""
    return _by_schedule(layouts, rank, [form.pending for form in FORMS])


def estimate_least_pending(layouts: Layouts, rank: IntColumn) -> Column:
    """[n, S] what every order of the schedule leaves beside ``estimate_least_in_flight``; ``estimate_pending`` where
    that is exact."""
    return _by_schedule(layouts, rank, [form.least_pending or form.pending for form in FORMS])


def estimate_gathers(layouts: Layouts, rank: IntColumn) -> tuple[Column, Column]:
    """[n, S] how often rank r gathers its sharded parameters for forwards and for backwards, where a pipeline puts off
    what it can: for every forward before the first backward, and then once and for all; or for every run of passes.
    """
    forward = _by_schedule(layouts, rank, [form.gathers or form.ahead or form.in_flight for form in FORMS])
    again = _by_schedule(layouts, rank, [form.gathers or _once for form in FORMS])
    return forward, again


def _once(p: Any, m: Any, v: Any, r: Any) -> Any:
    return 1.0 + 0.0 * r


def _by_schedule(layouts: Layouts, rank: IntColumn, forms: list[Form]) -> Column:
    """[n, S] each row by the form of its schedule; schedules that share one are evaluated together."""
    p, m, v = (column[:, None].astype(np.float64) for column in (layouts.pp, layouts.num_microbatches, layouts.vpp))
    shape = np.broadcast_shapes(rank.shape, (len(layouts), 1))
    rank = np.broadcast_to(rank, shape)
    distinct = list(dict.fromkeys(forms[code] for code in np.flatnonzero(np.bincount(layouts.schedule))))
    if len(distinct) == 1:
        return np.asarray(np.broadcast_to(distinct[0](p, m, v, rank), shape))
    found = np.empty(shape)
    own = np.array([distinct.index(form) if form in distinct else -1 for form in forms])[layouts.schedule]
    for number, form in enumerate(distinct):
        rows = np.flatnonzero(own == number)
        found[rows] = form(p[rows], m[rows], v[rows], rank[rows])
    return found


def estimate_makespan_s(
    layouts: Layouts,
    forward_s: Column,
    backward_s: Column,
    weight_grad_s: Column,
    multiplicity: IntColumn,
    edge_s: Column,
) -> Column:
    """[n] seconds of all micro-batches through the pipeline; inputs [n, S] per rank and micro-batch, ``edge_s`` [n].

    m · max w + (sum u - max u) / v, with w = F + B of a rank and u what it idles for a chunk: its F, I and W weighed by
    the schedule's ``fill``; ``slack`` and ``tripled`` add to a micro-batch's time. Filling and draining cross an edge
    as often as ``crossings`` says; a barrier puts off all backwards by a micro-batch's time. Under 1f1b the first rank
    has p micro-batches in flight, so each takes a p-th of a round trip at least: mean w + 2(p-1)/p edges.
    Exact for gpipe, 1f1b, interleaved-1f1b and zb-h1 of equal stages without delay: bubble / ideal = (p-1) / (m·v).
    Source: Narayanan et al. 2021, section 2.2; Qi et al. 2023, section 2.
    """
    m, p, v = (column.astype(np.float64) for column in (layouts.num_microbatches, layouts.pp, layouts.vpp))
    work = forward_s + backward_s
    fill = _FILL[layouts.schedule][:, :, None]
    input_grad_s = backward_s - weight_grad_s
    bubble = np.maximum(fill[:, 0] * forward_s + fill[:, 1] * input_grad_s + fill[:, 2] * weight_grad_s, 0.0)
    heaviest = work.argmax(axis=1)[:, None]
    peak = np.take_along_axis(work, heaviest, axis=1)[:, 0]
    idle = (bubble * multiplicity).sum(axis=1) - np.take_along_axis(bubble, heaviest, axis=1)[:, 0]
    round_trip = ((work * multiplicity).sum(axis=1) + 2.0 * (p - 1.0) * edge_s) / p
    slot = np.where(layouts.schedule == ONE_F_ONE_B, np.maximum(peak, round_trip), peak)
    longest = 3.0 * np.maximum(np.maximum(forward_s, input_grad_s), weight_grad_s).max(axis=1)
    slot = np.where(_TRIPLED[layouts.schedule], np.maximum(slot, longest), slot)
    slot = slot + _SLACK[layouts.schedule] * np.abs(backward_s - forward_s).max(axis=1) / v
    crossings = _CROSSINGS[layouts.schedule] * count_crossings(layouts)
    return np.asarray((m + count_barriers(layouts)) * slot + idle / v + np.where(p > 1, crossings * edge_s, 0.0))


def estimate_busy_share(setting: Setting, layouts: Layouts) -> Column:
    """[n] of a send's time, the share in which its rank does nothing else: 1 - the runtime's ``overlap.pipeline``.

    Interleaved, a blocking rank passes an activation on and a gradient back in one exchange: each takes half of it.
    Source: Megatron-LM v2.5, megatron/schedules.py: send_forward_recv_backward and send_backward_recv_forward of 1F1B,
    send_forward_backward_recv_forward_backward of the interleaved schedule.
    """
    overlap = setting.overlap
    plain = 1.0 - overlap.pipeline
    chunked = plain if overlap.pipeline_interleaved is None else 1.0 - overlap.pipeline_interleaved
    return np.where(layouts.schedule == INTERLEAVED, 0.5 * chunked, plain)


def count_crossings(layouts: Layouts) -> Column:
    """[n] boundaries between ranks on an activation's way through the model."""
    zigzag, looped = layouts.vpp * (layouts.pp - 1), layouts.pp * layouts.vpp - 1
    return np.where(_ZIGZAG[layouts.schedule] | (layouts.pp == 1), zigzag, looped).astype(np.float64)


def count_sends(layouts: Layouts, rank: IntColumn) -> tuple[Column, Column]:
    """[n, S] messages that rank r sends for one micro-batch: (activations, gradients); none past either end, none where
    a zigzag turns. Of several copies the mean: a micro-batch crosses one.
    """
    p, v = layouts.pp[:, None], layouts.vpp[:, None]
    zigzag, copies = _ZIGZAG[layouts.schedule][:, None], _COPIES[layouts.schedule][:, None]
    # Round and round the last rank's last chunk alone sends nothing on; a zigzag turns at either end.
    turns_far, turns_near = np.where(zigzag, v - v // 2, 1), np.where(zigzag, v // 2, 0)
    v = np.where(p > 1, v, 1)

    def sent(at: IntColumn) -> tuple[Column, Column]:
        first, last = at == 0, at == p - 1
        activations = v - last * turns_far - first * turns_near
        gradients = v - first * turns_far - last * turns_near
        return activations.astype(np.float64), gradients.astype(np.float64)

    there = sent(rank)
    if (copies == 1.0).all():
        return there
    back, share = sent(p - 1 - rank), 1.0 - 1.0 / copies
    return there[0] + (back[0] - there[0]) * share, there[1] + (back[1] - there[1]) * share


def edge_bytes(setting: Setting, layouts: Layouts) -> Column:
    """[n] bytes of one activation between stages: micro-batch · seq · hidden / (cp · tp); each rank sends its shard."""
    tokens = layouts.micro_batch_size * setting.workload.seq_len / layouts.cp
    shards = np.where(layouts.sequence_parallel > 0, layouts.tp, 1)
    if setting.runtime.scatters_pipeline_sends:
        shards = layouts.tp
    return np.asarray(tokens * setting.model.hidden_size * setting.activation_bytes / shards)


def estimate_receive_bytes(setting: Setting, layouts: Layouts, rank: IntColumn) -> Column:
    """[n, S] bytes of the buffers in which rank r receives activations and their gradients.

    A buffer a micro-batch for each message (``count_sends``: whatever is sent is answered) where the runtime allocates
    them all beforehand. Elsewhere ``estimate_waiting`` of them, those of a chunk as large as those of a rank.
    """
    received = np.add(*count_sends(layouts, rank))
    buffers = received * layouts.num_microbatches[:, None]
    if not setting.runtime.memory.receives_every_microbatch:
        buffers = np.minimum(estimate_waiting(layouts, rank), buffers)
    return np.where(layouts.pp[:, None] > 1, buffers * edge_bytes(setting, layouts)[:, None], 0.0)


def estimate_waiting(layouts: Layouts, rank: IntColumn) -> Column:
    """[n, S] messages that rank r has received, or is receiving, and has not used up.

    Of either direction one in use and one under way, and one that waits where a rank has several stages: it runs one
    pass at a time. Where stages lie round and round, what the last rank sends the first waits until the rest of the
    round is through: round - p + 1 activations; of gradients, to the last rank and at half that pace, round - p / 2.
    """
    p, stages = layouts.pp[:, None], (layouts.vpp * count_copies(layouts))[:, None]
    first, last, usual = rank == 0, rank == p - 1, np.where(stages > 1.0, 3.0, 2.0)
    around = _by_schedule(layouts, rank, [form.round or nothing for form in FORMS])
    around = np.where(layouts.vpp[:, None] > 1, around, 0.0)
    activations = np.where(first, np.maximum(usual, around - p + 2.0), usual)
    gradients = np.where(last, np.maximum(usual, around - p / 2.0 + 1.0), usual)
    # A rank's only stage takes nothing where the model begins or ends.
    return np.asarray(activations * ~(first & (stages == 1.0)) + gradients * ~(last & (stages == 1.0)))


def schedule_is_legal(layouts: Layouts) -> BoolColumn:
    """[n] whether the schedule exists at the layout's sizes."""
    legal = np.zeros(len(layouts), bool)
    for code, form in enumerate(FORMS):
        rows = layouts.schedule == code
        legal[rows] = form.allows(layouts.pp[rows], layouts.num_microbatches[rows], layouts.vpp[rows])
    return legal
