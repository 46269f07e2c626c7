"""What ``plan ui`` starts: the question on the left, its answer page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import streamlit as st

from costmodel.schema.errors import Infeasible, ParlayError, SolverTimeout
from planner.search.run import Progress
from ui.answers import Answer, find_answer
from ui.choose import Sidebar
from ui.parts import tighten
from ui.views import alternatives, answer, trust, why
from ui.words import said

PAGES: tuple[tuple[str, str, Callable[[Answer], None]], ...] = (
    ("Answer", ":material/check_circle:", answer.show),
    ("Why", ":material/query_stats:", why.show),
    ("Alternatives", ":material/scatter_plot:", alternatives.show),
    ("Trust", ":material/verified:", trust.show),
)

WITHOUT_ANSWER: Mapping[Callable[[Answer], None], Callable[[], None]] = MappingProxyType({trust.show: trust.show_alone})
"""What pages still draw when the question has no answer."""


def main() -> None:
    """Draw the page that the address names; the first of ``PAGES`` - title, icon, what draws it - opens."""
    st.set_page_config(page_title="Parlay", page_icon=":material/grid_view:", layout="wide")
    # Drawn here and not by the pages: what is asked then stays as it is from one page to the next.
    sidebar = Sidebar()
    page = st.navigation(
        [
            st.Page(
                _drawing(sidebar, show), title=title, icon=icon, url_path=title.lower(), default=show is answer.show
            )
            for title, icon, show in PAGES
        ],
        position="top",
    )
    tighten()
    page.run()


def _drawing(sidebar: Sidebar, show: Callable[[Answer], None]) -> Callable[[], None]:
    def draw() -> None:
        try:
            found = _find(sidebar)
        except ParlayError as error:
            _refuse(error, sidebar)
            WITHOUT_ANSWER.get(show, lambda: None)()
        else:
            show(found)

    return draw


def _find(sidebar: Sidebar) -> Answer:
    """The answer, with the search's progress where it takes long enough to be read."""
    question = sidebar.question
    request = question.request()
    place = st.empty()

    def say(progress: Progress) -> None:
        best = "" if progress.best_s is None else f", best step so far {progress.best_s:.3g} s"
        place.caption(f"Searching {progress.considered:,} layouts: {progress.evaluated:,} simulated{best}.")

    found = find_answer(question, request, say)
    place.empty()
    return found


def _refuse(error: ParlayError, sidebar: Sidebar) -> None:
    """The sentence beside its field and, with all that is known about it, on the page."""
    beside = sidebar.complain(error)
    titles = {Infeasible: "No layout meets this", SolverTimeout: "No answer within the time limit"}
    st.subheader(titles.get(type(error), "This cannot be planned as asked"), anchor=False)
    st.error(said(error))
    for reason in getattr(error, "reasons", ()):
        st.markdown(f"- {reason}")
    if beside:
        st.caption("The field on the left says so too: change it there, and the page answers at once.")


if __name__ == "__main__":
    main()
