"""Choose: the sidebar. What is asked, and beside each field what is wrong with it.

Every widget is bound to the page's address, so that a view can be shared. Where an address says what no field can
take, the default stands and the field says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

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

NUMBERS: dict[str, Callable[[str], float]] = {
    "gpus": int, "seq_len": int, "global_batch_size": int, "fit_probability": float, "time_limit_s": float,
}  # fmt: skip
"""Fields that an address can spell wrongly; the others take any text and are checked by the planner."""

DEFAULT = Question()


class Sidebar:
    """The fields, each with a slot below it for a sentence; ``question`` once all are drawn."""

    def __init__(self) -> None:
        self._slots: dict[str, Any] = {}
        self._address = _wrong_numbers()
        self._values: dict[str, Any] = {}
        with st.sidebar:
            self._model()
            self._machine()
            self._step()
            self._limits()
            self._run()
        self.question = Question(**self._values)
        for name, typed in self._address.items():
            self._slots[name].warning(f"{name} = {typed!r} in the address is no number: the default stands.")

    def complain(self, error: ParlayError) -> bool:
        """Say what is wrong beside the field that it is about; False where it is about no single one."""
        slot = self._slots.get(field_of(error) or "")
        if slot is None:
            return False
        slot.error(said(error))
        return True

    def _field(self, name: str, widget: Callable[..., Any], label: str, *arguments: Any, **options: Any) -> Any:
        value = widget(label, *arguments, key=name, bind="query-params", **options)
        self._slots[name] = st.empty()
        if value is not None:
            self._values[name] = tuple(value) if isinstance(value, list) else value
        return value

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
        left, right = st.columns([3, 2])
        with left:
            gpu = self._field("gpu", st.selectbox, "GPU", names, index=_at(names, DEFAULT.gpu), accept_new_options=True)
        with right:
            gpus = self._field("gpus", st.number_input, "How many", min_value=1, value=DEFAULT.gpus, step=8)
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
        left, right = st.columns(2)
        with left:
            self._field(
                "seq_len", st.number_input, "Tokens a sequence", value=None, min_value=1, step=1024, placeholder="auto"
            )
        with right:
            self._field(
                "global_batch_size", st.number_input, "Sequences a step", value=None, min_value=1, step=64,
                placeholder="4 Mi tokens",
            )  # fmt: skip
        left, right = st.columns(2)
        with left:
            self._field("precision", st.selectbox, "Precision", PRECISIONS, index=None, placeholder="auto")
        with right:
            self._field("runtime", st.selectbox, "Runtime", runtime_names(), index=None, placeholder="torch")
        self._field("compile", st.toggle, "Compiled kernels")

    def _limits(self) -> None:
        with st.expander("Constraints", icon=":material/tune:", expanded=_any_asked("fix", "limit", "forbid", "allow")):
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
                "fit_probability", st.slider, "Least P(fits)", 0.5, 0.99, DEFAULT.fit_probability, 0.01,
                help="How sure it must be that memory suffices.",
            )  # fmt: skip
            self._field("time_limit_s", st.number_input, "Search for at most, s", 1.0, 600.0, DEFAULT.time_limit_s, 5.0)

    def _run(self) -> None:
        st.subheader("The whole run", divider="gray")
        left, right = st.columns(2)
        with left:
            self._field("tokens", st.text_input, "Tokens", placeholder="1T")
        with right:
            self._field("price", st.text_input, "Price a GPU-hour", placeholder="2.5")


def _at(names: list[str] | tuple[str, ...], name: str) -> int:
    return list(names).index(name)


def _any_asked(*names: str) -> bool:
    return any(st.session_state.get(name) or name in st.query_params for name in names)


def _wrong_numbers() -> dict[str, str]:
    """What the address says of numbers that is none. Read before the widgets drop it, and kept for the session."""
    kept: dict[str, str] = st.session_state.setdefault("_wrong_numbers", {})
    for name, number in NUMBERS.items():
        typed = st.query_params.get(name)
        if typed:
            try:
                number(typed)
            except ValueError:
                kept[name] = typed
        if name in kept and name in st.session_state and typed:
            try:
                number(typed)
                del kept[name]
            except ValueError:
                pass
    return kept
