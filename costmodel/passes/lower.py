"""From passes to what each rank issues: passes with their sends, receives and collectives, in one safe order.

Transports match messages by order alone: on a pair of ranks the k-th send in a direction meets the k-th receive, and
what is issued on one stream waits for what was issued before. Sends and receives placed on each rank by itself may
then cross and wait for each other for ever. Here both sides of every transfer are placed at once, from one order of
all passes by the time they end: right after the pass that makes the product, its send goes to the end of that rank's
list and its receive to the end of the receiver's - before whatever pass is running there, so that it is posted before
the product is ready.

No order of events is safer. Take each transfer as one moment: walked in the order of placement, every action finds all
earlier actions of its own rank done, and both ends of a transfer reached. So the lists end even if each rank did one
action at a time and a send lasted until its receive; with streams, buffers or tags, which only let more run at once,
they end as well. check_lowered.py runs lists under that strictest rule.
"""

from __future__ import annotations

from collections.abc import Mapping

from costmodel.passes.actions import NOBODY, Action, ActionKind, action_of
from costmodel.passes.check import check_schedule
from costmodel.passes.gathers import add_gathers
from costmodel.passes.rules import WHOLE, Product, Rules
from costmodel.passes.run import USUAL_TIMES, run_passes
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.schedule import VOCAB_KINDS, Pass, PassKind, Schedule

Actions = tuple[tuple[Action, ...], ...]
"""For each rank its actions in the order in which it issues them."""

_SENDS = {
    "activation": (ActionKind.SEND_F, ActionKind.RECV_F, 1),
    "gradient": (ActionKind.SEND_B, ActionKind.RECV_B, -1),
    "frozen": (ActionKind.SEND_FROZEN, ActionKind.RECV_FROZEN, 1),
}
"""What is sent -> send, receive, and how far the receiving stage is from the sending one."""

_BROADCASTS = {"activation": ActionKind.BROADCAST_HIDDEN, "gradient": ActionKind.BROADCAST_GRADIENT}
_JOINS = {
    "embedded": ActionKind.SUM_EMBEDDED,
    "statistics": ActionKind.SUM_STATISTICS,
    "vocab_gradient": ActionKind.SUM_VOCAB_GRADIENT,
}


def lower(schedule: Schedule, *, gathers: bool = False, times: Mapping[PassKind, float] = USUAL_TIMES) -> Actions:
    """For each rank its actions in the order in which it issues them.

    A product that another rank takes is sent; what stays on a rank is handed over there and needs no action.
    ``gathers``: with UNSHARD, RESHARD and REDUCE_GRAD where the schedule does not state them (gathers.py). ``times``:
    how long passes take relative to each other, which decides how far ahead of its pass a receive is posted.

    Raises InvalidSpec for a schedule that ``check_schedule`` refuses.
    """
    if problems := check_schedule(schedule):
        raise InvalidSpec(f"schedule {schedule.name!r} cannot run: {problems[0]}")
    if gathers:
        schedule = add_gathers(schedule)
    placing = _Placing(schedule)
    run_passes(schedule, placing.place, times)
    return tuple(map(tuple, placing.actions))


class _Placing:
    """The lists as they grow."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.actions: list[list[Action]] = [[] for _ in schedule.orders]
        rules = Rules(schedule)
        self.takers: dict[Product, int] = {}
        self.broadcast: set[Product] = set()
        for rank, order in enumerate(schedule.orders):
            for step in order:
                for part in step.work:
                    for product in rules.takes(part):
                        if product.stage == WHOLE:
                            continue
                        if part.kind in VOCAB_KINDS:
                            self.broadcast.add(product)
                        elif product.stage != part.stage:
                            self.takers[product] = rank

    def place(self, rank: int, step: Pass, products: list[Product]) -> None:
        """The pass that ends next on ``rank``, and what brings its products to the ranks that take them."""
        self.actions[rank].append(action_of(step))
        if self.schedule.num_ranks > 1:
            for product in products:
                self._transfer(rank, product)

    def _transfer(self, rank: int, product: Product) -> None:
        if product.what in _JOINS:
            self._join(product)
            return
        if product in self.broadcast:
            self._everywhere(Action(_BROADCASTS[product.what], product.stage, product.microbatch, rank))
        taker = self.takers.get(product, rank)
        if taker != rank:
            send, receive, step = _SENDS[product.what]
            self.actions[rank].append(Action(send, product.stage, product.microbatch, taker))
            self.actions[taker].append(Action(receive, product.stage + step, product.microbatch, rank))

    def _join(self, product: Product) -> None:
        first, last = 0, self.schedule.num_stages - 1
        stage = first if product.what == "embedded" else last
        root = NOBODY if product.what == "statistics" else self.schedule.stage_to_rank[stage]
        self._everywhere(Action(_JOINS[product.what], stage, product.microbatch, root))

    def _everywhere(self, action: Action) -> None:
        for actions in self.actions:
            actions.append(action)
