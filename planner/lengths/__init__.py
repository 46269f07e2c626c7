"""Batches of sequences of mixed lengths: ranks in groups of unlike context parallelism (``plan --lengths``)."""

from __future__ import annotations

from planner.lengths.find import find_length_plan
from planner.lengths.histogram import Histogram, read_histogram

__all__ = ["Histogram", "find_length_plan", "read_histogram"]
