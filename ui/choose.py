"""Choose: the sidebar. What is asked, and beside each field what is wrong with it.

Every widget is bound to the page's address, so that a view can be shared. Where an address says what no field can
take, the default stands and the field says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isinf, nan
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from costmodel.catalog.devices import device_names
from costmodel.catalog.models import model_names
from costmodel.catalog.runtimes import runtime_names
from costmodel.schedules import SCHEDULES
from costmodel.schema.errors import ParlayError
from planner.constraints import ALLOWABLE, FORBIDDABLE
from planner.workload import PRECISIONS
from ui.cluster_text import cluster_text
from ui.question import Question, field_of
from ui.words import said

RANGES: dict[str, tuple[Any, Any]] = {
    "gpus": (1, 1_000_000), "seq_len": (1, 1_000_000_000), "global_batch_size": (1, 1_000_000_000),
    "fit_probability": (0.5, 0.99), "time_limit_s": (1.0, 600.0),
}  # fmt: skip
"""Least and most of the fields that take numbers alone; the others take any text and are checked by the planner."""

CONSTRAINTS = ("fix", "limit", "forbid", "allow", "schedules", "fit_probability", "time_limit_s")
"""Fields that are folded away until one of them is asked for."""

DEFAULT = Question()


class Sidebar:
    """The fields, each with a slot below it for a sentence; ``question`` once all are drawn."""

    def __init__(self) -> None:
        self._slots: dict[str, Any] = {}
        self._in_row = False
        self._refused = _refused_numbers()
        self._values: dict[str, Any] = {}
        with st.sidebar:
            self._model()
            self._machine()
            self._step()
            self._limits()
            self._run()
        self.question = Question(**self._values)
        for name, typed in self._refused.items():
            if getattr(self.question, name) == getattr(DEFAULT, name):
                least, most = RANGES[name]
                self._slots[name].warning(
                    f"{name} = {typed!r} in the address is no number from {least:,} to {most:,}: the default stands."
                )

    def complain(self, error: ParlayError) -> bool:
        """Say what is wrong beside the field that it is about; False where it is about no single one."""
        slot = self._slots.get(field_of(error) or "")
        if slot is None:
            return False
        slot.error(said(error))
        return True

    def _field(self, name: str, widget: Callable[..., Any], label: str, *arguments: Any, **options: Any) -> Any:
        # A field of whole numbers would break on an infinite one, and so is left unbound.
        bind = None if isinf(_read(self._refused.get(name, ""))) else "query-params"
        value = widget(label, *arguments, key=name, bind=bind, **options)
        if not self._in_row:
            self._slots[name] = st.empty()
        if value is not None:
            self._values[name] = tuple(value) if isinstance(value, list) else value
        return value

    @contextmanager
    def _row(self, *names: str, widths: Sequence[int] = (1, 1)) -> Iterator[list[DeltaGenerator]]:
        """Columns for two fields, the slots of both below them, where a sentence has the sidebar's whole width."""
        self._in_row = True
        yield st.columns(widths)
        self._in_row = False
        self._slots.update({name: st.empty() for name in names})

    def _number(self, name: str, label: str, step: float, place: Any, **options: Any) -> Any:
        return self._field(name, place.number_input, label, *RANGES[name], getattr(DEFAULT, name), step, **options)

    def _model(self) -> None:
        names = model_names()
        self._field(
            "model", st.selectbox, "Model", names, index=_at(names, "llama-3.1-70b"), accept_new_options=True,
            placeholder="Type a name",
        )  # fmt: skip
        with st.popover("Paste a config.json", width="stretch", icon=":material/data_object:"):
            self._field(
                "config", st.text_area, "Hugging Face config.json", height=280,
                placeholder='{"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, …}',
                help="It takes the place of the model above; clear it to go back.",
            )  # fmt: skip

    def _machine(self) -> None:
        names = device_names()
        with self._row("gpu", "gpus", widths=(3, 2)) as (left, right):
            gpu = self._field(
                "gpu", left.selectbox, "GPU", names, index=_at(names, DEFAULT.gpu), accept_new_options=True
            )
            gpus = self._number("gpus", "How many", 8, right)
        with st.popover("Edit the cluster", width="stretch", icon=":material/hub:"):
            if st.button("Start from the GPUs above", width="stretch"):
                st.session_state["cluster"] = cluster_text(gpu, gpus)
            self._field(
                "cluster", st.text_area, "Nodes and network, as TOML", height=420,
                placeholder="Empty: the usual machine of the GPU above",
                help="It takes the place of the GPU and its number above; clear it to go back.",
            )  # fmt: skip

    def _step(self) -> None:
        st.subheader("A training step", divider="gray")
        with self._row("seq_len", "global_batch_size") as (left, right):
            self._number("seq_len", "Tokens a sequence", 1024, left, placeholder="auto")
            self._number("global_batch_size", "Sequences a step", 64, right, placeholder="4M tokens")
        self._field(
            "precision", st.selectbox, "Precision", PRECISIONS, index=None, placeholder="auto",
            accept_new_options=True, help="Of matrix products. Left empty: bf16 where the GPU has it.",
        )  # fmt: skip
        self._field(
            "runtime", st.selectbox, "Runtime", runtime_names(), index=None, placeholder="torch",
            accept_new_options=True, help="The training framework: what it overlaps, shards and recomputes.",
        )  # fmt: skip
        self._field("compile", st.toggle, "Compiled kernels", help="The runtime's kernels as its compiler fuses them.")

    def _limits(self) -> None:
        with st.expander("Constraints", icon=":material/tune:", expanded=_unfolded()):
            self._field("fix", st.text_input, "Fix", placeholder="tp=8, pp=4", help="What the layout must have.")
            self._field(
                "limit", st.text_input, "Limit", placeholder="tp=..8, pp=2..", help="Between what it must stay."
            )
            self._field(
                "forbid", st.multiselect, "Forbid", sorted({*FORBIDDABLE, *SCHEDULES}), accept_new_options=True,
                placeholder="pp, full, zb-h1", help="Techniques, schedules, or KEY=VALUE.",
            )  # fmt: skip
            self._field(
                "allow", st.multiselect, "Allow", sorted(ALLOWABLE), accept_new_options=True,
                placeholder="8-bit optimizer, …", help="What it may use though it changes the numbers.",
            )  # fmt: skip
            self._field(
                "schedules", st.multiselect, "Schedules", sorted(SCHEDULES), accept_new_options=True,
                placeholder="all that the runtime has",
            )  # fmt: skip
            self._field(
                "fit_probability", st.slider, "Least P(fits)", *RANGES["fit_probability"],
                DEFAULT.fit_probability, 0.01, help="How sure it must be that memory suffices.",
            )  # fmt: skip
            self._number("time_limit_s", "Search for at most, s", 5.0, st)

    def _run(self) -> None:
        st.subheader("The whole run", divider="gray")
        with self._row("tokens", "price") as (left, right):
            self._field("tokens", left.text_input, "Tokens", placeholder="1T", help="To train on, like 300B or 15T.")
            self._field("price", right.text_input, "Price a GPU-hour", placeholder="2.5")


def _at(names: list[str] | tuple[str, ...], name: str) -> int:
    return list(names).index(name)


def _unfolded() -> bool:
    """Whether a constraint is asked for, or has been: what is open stays open."""
    values = {name: st.session_state.get(name) for name in CONSTRAINTS}
    asked = any(
        name in st.query_params or (value and value != getattr(DEFAULT, name)) for name, value in values.items()
    )
    st.session_state["_unfolded"] = asked or st.session_state.get("_unfolded", False)
    return bool(st.session_state["_unfolded"])


def _refused_numbers() -> dict[str, str]:
    """Numbers of the address that their fields do not take. Read before the fields drop them, kept for the session."""
    kept: dict[str, str] = st.session_state.setdefault("_refused_numbers", {})
    for name, (least, most) in RANGES.items():
        typed = st.query_params.get(name)
        if typed and not least <= _read(typed) <= most:
            kept[name] = typed
    return kept


def _read(typed: str) -> float:
    try:
        return float(typed)
    except ValueError:
        return nan
