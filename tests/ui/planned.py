"""Plans of given layouts for the figures' tests, priced without a search, and what a figure draws of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from costmodel.schema.layout import Layout
from costmodel.schema.plan import Plan
from planner.predict import predict_plan
from planner.request import build_request

CLUSTER = Path(__file__).parents[2] / "examples" / "cluster.toml"


@cache
def planned(
    model: str = "llama-3.1-8b", gpus: int | None = 16, schedule: str = "1f1b", recompute: str = "none", **asked: Any
) -> Plan:
    """The plan of one layout; ``cluster``, ``runtime``, ``global_batch_size`` of the request, the rest its degrees."""
    about = {name: asked.pop(name) for name in ("cluster", "runtime", "global_batch_size") if name in asked}
    request = build_request(model, gpus, **about)
    layout = Layout(**asked)
    batch = request.workload.global_batch_size // (layout.dp * layout.micro_batch_size)
    return predict_plan(request, layout.model_copy(update={"num_microbatches": batch}), schedule, recompute)


def count_boxes(trace: go.Scatter) -> int:
    """How many rectangles a trace has: each ends in a gap."""
    return int(np.isnan(np.asarray(trace.x, np.float64)).sum())
