"""Of Why, the cluster: which GPUs work together along each mesh axis, and what crosses each level of the network."""

from __future__ import annotations

import streamlit as st

from costmodel.schema.plan import Plan
from planner.report.units import plural
from ui import charts
from ui.figures.cluster import drawn_devices, drawn_levels
from ui.figures.mesh import AXES, axes_of, group_of, level_between
from ui.parts import chart


@st.fragment
def show_cluster(plan: Plan) -> None:
    """Draw the section; its own control redraws nothing else."""
    layout = plan.layout
    st.subheader("On the cluster", divider="gray")
    axes = axes_of(layout)
    axis = ""
    if axes:
        axis = (
            st.segmented_control(
                "Mesh axis", axes, default=axes[0], key="why_axis",
                bind="query-params", required=True,
            )
            or axes[0]
        )  # fmt: skip
        degree, group = getattr(layout, axis), group_of(layout, axis)
        level = level_between(plan.cluster, layout, group)
        st.caption(
            f"**{axis} {degree}**, {AXES[axis]}. {plural(layout.world_size // degree, 'group')} of {degree} GPUs;"
            f" rank 0's, outlined, talks over {level.name}. A colour is a place on the axis."
        )
    chart(charts.cluster(plan, axis), "why_cluster")
    levels = drawn_levels(plan)
    if levels:
        st.caption(f"Boxes are levels of the network, from the inside out: {', '.join(levels)}.")
    drawn = drawn_devices(plan)
    if drawn < layout.world_size:
        st.caption(f"The first {drawn:,} of {layout.world_size:,} GPUs are drawn.")
    if any(plan.prediction.network.values()):
        st.markdown("**What one GPU sends in a step, by level of the network**")
        chart(charts.traffic(plan), "why_traffic")
