"""Every figure of the dashboard: pure functions from what the planner knows to a Plotly figure."""

from ui.figures.calibration import calibrated_parameters, fitted_factors, residuals
from ui.figures.measured import errors_by_group, predicted_against_measured
from ui.figures.memory import memory
from ui.figures.step_time import step_time

__all__ = [
    "calibrated_parameters",
    "errors_by_group",
    "fitted_factors",
    "memory",
    "predicted_against_measured",
    "residuals",
    "step_time",
]
