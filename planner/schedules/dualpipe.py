"""DualPipe and DualPipeV: one direction's forward beside the other's backward, as one pass that overlaps the two.

Both are the same eight steps. A rank has two stages, called near and far after the side from which their micro-batches
come; it sits at depth h of H. DualPipe: H = p/2, two copies in opposite directions. DualPipeV: H = p, one copy folded
into a V, the far half of whose stages plays the second copy. With n micro-batches for each stage:

    1  F near, 2(H - h - 1) times                       5  B far, pair (F far, B near), H - h - 1 times
    2  F near, F far, h + 1 times                       6  B far, B near, h + 1 times, split from half way on
    3  I far, W, F far, H - h - 1 times                 7  W, I near, H - h - 1 times
    4  pair (F near, B far), pair (F far, B near),      8  W, h + 1 times
       n - 2H + h + 1 times

DualPipe's bubble is (p/2 - 1)(F&B + B - 3W), F&B the time of a pair and B that of a full backward, exactly so where
F = I = W and F&B = F + B; p + 1 micro-batches are alive on every rank; weights twice. DualPipeV's is
(p - 1)(F&B + B - 3W) in times of its half as large stages, with p + 1/2 alive; weights once.

The steps need n >= 2H. With fewer micro-batches the order is that of n = 2H without the missing ones.

Source: DeepSeek-AI 2024, "DeepSeek-V3 Technical Report", section 3.2.1, and its published schedule of DualPipe; Qi et
al. 2025, "DualPipe could be better without the Dual" (the cut in half).
"""

from __future__ import annotations

from collections import deque

from costmodel.schema.schedule import Pass, PassKind, overlap

_F, _B, _I, _W = PassKind.FORWARD, PassKind.BACKWARD, PassKind.INPUT_GRAD, PassKind.WEIGHT_GRAD


def dualpipe(pp: int, num_microbatches: int, vpp: int = 1) -> list[list[Pass]]:
    """The passes of each rank in order; one stage of each copy a rank; ``pp`` even.

    The first copy takes the first half of the micro-batches, and the odd one.
    """
    del vpp
    first = (num_microbatches + 1) // 2
    blocks = (range(first), range(first, num_microbatches))
    orders = []
    for rank in range(pp):
        stages = [(rank, blocks[0]), (2 * pp - 1 - rank, blocks[1])]
        near, far = stages if rank < pp // 2 else reversed(stages)
        orders.append(_rank_order(pp // 2, min(rank, pp - 1 - rank), first, near, far))
    return orders


def dualpipe_v(pp: int, num_microbatches: int, vpp: int = 2) -> list[list[Pass]]:
    """The passes of each rank in order; two stages a rank, placed in a V."""
    del vpp
    block = range(num_microbatches)
    return [_rank_order(pp, rank, num_microbatches, (rank, block), (2 * pp - 1 - rank, block)) for rank in range(pp)]


def _rank_order(half: int, depth: int, count: int, near: tuple[int, range], far: tuple[int, range]) -> list[Pass]:
    """The eight steps for one rank; ``near`` and ``far``: a stage and its micro-batches."""
    run = _Run(near, far)
    ramp, inner = half - depth - 1, depth + 1
    for _ in range(2 * ramp):
        run.alone(_F, 0)
    for _ in range(inner):
        run.alone(_F, 0)
        run.alone(_F, 1)
    for _ in range(ramp):
        run.alone(_I, 1)
        run.weight_grad()
        run.alone(_F, 1)
    for turn in range(max(count, 2 * half) - 2 * half + inner):
        if turn == 0 and ramp == 0:
            # In the middle of the pipeline the first backward would be held up by the forward beside it.
            run.alone(_F, 0)
            run.alone(_B, 1)
        else:
            run.pair(0, 1)
        run.pair(1, 0)
    for _ in range(ramp):
        run.alone(_B, 1)
        run.pair(1, 0)
    for turn in range(2 * inner):
        late = turn >= inner
        run.alone(_I if late else _B, 1 - turn % 2)
    for _ in range(ramp):
        run.weight_grad()
        run.alone(_I, 0)
    for _ in range(inner):
        run.weight_grad()
    return run.order


class _Run:
    """An order under construction. Micro-batches of a stage come in turn; those beyond its last are left out."""

    def __init__(self, near: tuple[int, range], far: tuple[int, range]) -> None:
        self.order: list[Pass] = []
        self._sides = (near, far)
        self._forwards, self._backwards = [0, 0], [0, 0]
        self._waiting: deque[Pass | None] = deque()

    def alone(self, kind: PassKind, side: int) -> None:
        step = self._next(kind, side)
        if step is not None:
            self.order.append(step)

    def pair(self, forward_side: int, backward_side: int) -> None:
        forward, backward = self._next(_F, forward_side), self._next(_B, backward_side)
        if forward is not None and backward is not None:
            self.order.append(overlap(forward, backward))
        else:
            self.order += [step for step in (forward, backward) if step is not None]

    def weight_grad(self) -> None:
        """The oldest that waits; a place kept for a micro-batch left out stays empty."""
        step = self._waiting.popleft()
        if step is not None:
            self.order.append(step)

    def _next(self, kind: PassKind, side: int) -> Pass | None:
        stage, microbatches = self._sides[side]
        turns = self._forwards if kind is _F else self._backwards
        at, turns[side] = turns[side], turns[side] + 1
        step = Pass(kind, stage, microbatches[at]) if at < len(microbatches) else None
        if kind is _I:
            self._waiting.append(None if step is None else Pass(_W, stage, step.microbatch))
        return step
