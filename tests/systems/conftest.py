"""Shares the helpers of the search's and the cost model's tests."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("costmodel", "planner/search"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))
