"""See it: the Streamlit dashboard over plans.

``app.py`` is what ``plan ui`` starts: the sidebar (``choose.py``) asks a ``Question``, ``answers.py`` searches and
remembers its ``Answer``, and one module of ``views/`` draws each page of it, with the pure figures of ``figures/`` that
``charts.py`` lists. ``parts.py``, ``palette.py`` and ``words.py`` are the look and the words that pages share.

What pages work out beside the plan knows nothing of Streamlit: ``rivals.py`` another layout, ``schedules.py`` other
schedules, ``runs.py`` a measured run, ``downloads.py`` files to take away, ``cluster_text.py`` a cluster to edit.
May import ``costmodel``, ``planner``, streamlit and plotly; never torch, triton or ``executor``.
"""
