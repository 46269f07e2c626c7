"""Shares the helpers of the search's and the cost model's tests, and of each other's."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("costmodel", "planner/search", "systems"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))
