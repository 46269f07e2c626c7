"""The search over clusters of unlike groups of nodes: which stages lie where, and how much of the model each takes.

May import what ``planner.search`` may; stage options and the integer program are the same.
"""
