"""What pins leave of the choices inside a layout: which policies a layer's kind may take, and how long stages are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pinned:
    """``instead``: [K][P] the policy that stands for each policy in each kind of layer; empty: each for itself.

    ``lengths``: layers by stage of one copy of the model where the user says so, else empty.
    """

    instead: tuple[tuple[int, ...], ...] = ()
    lengths: tuple[int, ...] = ()

    def policy(self, kind: int, policy: int) -> int:
        """The policy that a layer of a kind really takes."""
        return self.instead[kind][policy] if self.instead else policy
