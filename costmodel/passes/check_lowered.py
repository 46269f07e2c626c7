"""Whether lowered lists run to their end on the strictest transport there could be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from costmodel.passes.actions import COLLECTIVES, NOBODY, RECEIVES, SENDS, Action, ActionKind

_SENT_AS = {
    ActionKind.RECV_F: (ActionKind.SEND_F, -1),
    ActionKind.RECV_B: (ActionKind.SEND_B, 1),
    ActionKind.RECV_FROZEN: (ActionKind.SEND_FROZEN, -1),
}
"""A receive -> the send that it meets, and how far the sending stage is from the receiving one."""

_BEFORE = {
    ActionKind.SEND_F: (ActionKind.FORWARD,),
    ActionKind.SEND_B: (ActionKind.BACKWARD, ActionKind.INPUT_GRAD),
    ActionKind.SEND_FROZEN: (ActionKind.FROZEN_FORWARD,),
}
"""A send -> the passes of which one makes what it sends."""

_AFTER = {
    ActionKind.FORWARD: ActionKind.RECV_F,
    ActionKind.BACKWARD: ActionKind.RECV_B,
    ActionKind.INPUT_GRAD: ActionKind.RECV_B,
    ActionKind.FROZEN_FORWARD: ActionKind.RECV_FROZEN,
}
"""A pass -> the receive of what it takes, where that comes from another rank."""


def check_lowered(actions: Sequence[Sequence[Action]]) -> list[str]:
    """What is wrong with each rank's list of actions, one sentence each, naming rank and action; empty when all end.

    1. A send comes after the pass that makes what it sends, a receive before the pass that takes it.
    2. From one rank to another the k-th send and the k-th receive are of the same thing: messages carry no tags.
    3. Run with every rank doing one action at a time, in order, the lists end. A send ends together with its receive,
       for which both ranks must have come to it; a collective ends when all ranks have. Nothing is buffered, nothing
       goes on in the background.

    What ends under 3 ends on any transport that keeps messages of a pair in order: one stream per rank, one stream per
    pair, one per direction, with or without buffers each only let more go on at once.
    """
    problems = [*_misplaced(actions), *_mismatched(actions)]
    return problems or _stuck(actions)


def _misplaced(actions: Sequence[Sequence[Action]]) -> Iterator[str]:
    for rank, own in enumerate(actions):
        places: dict[tuple[ActionKind, int, int], int] = {}
        for at, action in enumerate(own):
            for part in action.parts or (action,):
                places[part[:3]] = at
        for at, action in enumerate(own):
            if action.kind in SENDS:
                makers = [(kind, action.stage, action.microbatch) for kind in _BEFORE[action.kind]]
                if not any(places.get(maker, at) < at for maker in makers):
                    yield f"rank {rank}: {action} stands before the pass that makes what it sends"
            for part in action.parts or (action,):
                receive = _AFTER.get(part.kind)
                if receive is not None and places.get((receive, part.stage, part.microbatch), at) > at:
                    yield f"rank {rank}: {part} stands before the receive of what it takes"


def _mismatched(actions: Sequence[Sequence[Action]]) -> Iterator[str]:
    sent: defaultdict[tuple[int, int], list[Action]] = defaultdict(list)
    received: defaultdict[tuple[int, int], list[Action]] = defaultdict(list)
    for rank, own in enumerate(actions):
        for action in own:
            if action.kind in SENDS:
                sent[rank, action.peer].append(action)
            elif action.kind in RECEIVES:
                received[action.peer, rank].append(action)
    for source, target in sorted(sent.keys() | received.keys()):
        pairs = zip_longest(sent[source, target], received[source, target])
        for place, (send, receive) in enumerate(pairs):
            if send is None:
                yield f"rank {target}: {receive} waits for ever: rank {source} sends {place} messages"
            elif receive is None:
                yield f"rank {source}: {send} waits for ever: rank {target} receives {place} messages"
            elif _sent(receive) != send[:3]:
                yield (
                    f"rank {target}: {receive} would be given what {send} of rank {source} sends, message {place} "
                    "on that way"
                )
            else:
                continue
            break


def _sent(receive: Action) -> tuple[ActionKind, int, int]:
    kind, distance = _SENT_AS[receive.kind]
    return kind, receive.stage + distance, receive.microbatch


def _stuck(actions: Sequence[Sequence[Action]]) -> list[str]:
    reached = [0] * len(actions)
    everyone = range(len(actions))

    def at(rank: int) -> Action | None:
        return actions[rank][reached[rank]] if reached[rank] < len(actions[rank]) else None

    def absent(rank: int, action: Action) -> list[int]:
        """The ranks that ``action`` of ``rank`` needs and that have not come to it."""
        if action.kind in COLLECTIVES:
            return [other for other in everyone if at(other) != action]
        if action.kind in SENDS or action.kind in RECEIVES:
            return [] if _meet(rank, action, at(action.peer)) else [action.peer]
        return []

    ready = list(everyone)
    while ready:
        rank = ready.pop()
        action = at(rank)
        if action is None or absent(rank, action):
            continue
        together = everyone if action.kind in COLLECTIVES else {rank, action.peer} - {NOBODY}
        for each in together:
            reached[each] += 1
        ready.extend(together)
    problems = []
    for rank in everyone:
        if (action := at(rank)) is not None:
            other = absent(rank, action)[0]
            where = "has ended" if at(other) is None else f"stands at {at(other)}"
            problems.append(f"rank {rank}: deadlock, {action} waits for ever for rank {other}, which {where}")
    return problems


def _meet(rank: int, action: Action, other: Action | None) -> bool:
    """Whether the two, on ``rank`` and on its peer, are the ends of one message."""
    if other is None or other.peer != rank:
        return False
    send, receive = (action, other) if action.kind in SENDS else (other, action)
    return send.kind in SENDS and receive.kind in RECEIVES and _sent(receive) == send[:3]
