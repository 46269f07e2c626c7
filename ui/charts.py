"""Every figure of the dashboard: pure functions from what the planner knows to a Plotly figure."""

from ui.figures.memory import memory
from ui.figures.step_time import step_time

__all__ = ["memory", "step_time"]
