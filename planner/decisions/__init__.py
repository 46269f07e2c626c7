"""What follows from layouts: how many GPUs, how long, at what cost, at which batch size, and what failures take.

May import ``costmodel`` and ``planner.*`` outside reports and the command line. The search is handed in.
"""
