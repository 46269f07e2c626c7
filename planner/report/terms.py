"""The terms of a step's time: reading them from a breakdown, naming them, saying what each one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EXPOSED, TOTAL = "_exposed_s", "_total_s"


@dataclass(frozen=True)
class Term:
    """``exposed_s`` lengthens the step; ``total_s`` is the time on the wire or the processor, hidden part included."""

    name: str
    exposed_s: float
    total_s: float

    @property
    def hidden_s(self) -> float:
        """What is neither exposed nor rounding."""
        hidden = self.total_s - self.exposed_s
        return hidden if hidden > 1e-9 * self.total_s else 0.0


def terms_of(breakdown: Mapping[str, float]) -> list[Term]:
    """The terms of a breakdown, longest exposed time first. A term without a total hides nothing."""
    names = dict.fromkeys(key.removesuffix(EXPOSED).removesuffix(TOTAL) for key in breakdown)
    terms = []
    for name in names:
        exposed = breakdown.get(name + EXPOSED, 0.0)
        terms.append(Term(name, exposed, breakdown.get(name + TOTAL, exposed)))
    return sorted(terms, key=lambda term: (-term.exposed_s, -term.total_s, term.name))


LABELS: Mapping[str, str] = {
    "gemm": "matrix products",
    "elementwise": "memory-bound ops",
    "host": "launches and host",
    "tp": "tensor parallel",
    "cp": "context parallel",
    "ep": "expert parallel",
    "dp": "data parallel",
    "frozen": "frozen parts",
    "pp": "stage to stage",
    "params": "parameters",
    "grads": "gradients",
    "gathered": "gathered parameters",
    "pending": "kept for W",
    "working": "working set",
}
"""What short names of terms and parts of memory stand for; the others speak for themselves."""

MEANING: Mapping[str, str] = {
    "gemm": "Σ 2·M·N·K / (sustained peak · efficiency of the shape), forward and backward",
    "attention": "Σ FLOPs of the scores and values (half of them where causal) / the fused kernel's rate",
    "elementwise": "Σ bytes that norms, activations, residuals and the loss move / memory bandwidth",
    "host": "launches · time per launch + the framework's own time per layer, where compute is too short to cover it",
    "recompute": "forward work done again in backward for layers that did not keep their activations",
    "tp": "all-gathers and reduce-scatters (or all-reduces) of activations over tp: α per hop + bytes / bandwidth",
    "cp": "keys and values around the ring, or all-to-alls of heads, over the context-parallel ranks",
    "ep": "dispatch and combine of routed tokens: two all-to-alls forward, two backward, each MoE layer",
    "bubble": "the makespan of the simulated order with instant sends - the busiest pipeline rank's own work",
    "pp": "what sends of activations and their gradients between pipeline ranks add to that makespan",
    "frozen": "forward of encoders that don't train: all of it before the passes, or what bubbles have no room for",
    "shared_cores": "what ranks on one host take from each other: the makespan on shared cores - on cores of their own",
    "dp": "reducing gradients and gathering parameters over the data-parallel ranks, beyond what backward hides",
    "optimizer": "bytes of parameters, gradients and moments read and written / memory bandwidth, once a step",
    "activation_offload": "saved activations off the device and back: what nothing hides + bytes / memory bandwidth",
    "activation_casts": "bytes read and written to keep saved activations in 8 bits, and back / memory bandwidth",
    "optimizer_offload": "optimizer state across the host link and its update there, beyond what compute hides",
    "jitter": "waiting for the slowest of N devices: spread of one device · √(2 ln N)",
}
"""What each term is made of, for ``--explain``."""


def label(name: str) -> str:
    """A name as read: ``tp`` -> ``tensor parallel``, ``grad_reduce`` -> ``grad reduce``."""
    return LABELS.get(name, name.replace("_", " "))
