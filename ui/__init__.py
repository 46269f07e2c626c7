"""See it: the Streamlit dashboard over plans.

``app.py`` is what ``plan ui`` starts: the sidebar asks (``choose.py`` -> ``Question``), ``answers.py`` searches and
remembers, one module of ``views/`` draws each page from the ``Answer``, with the figures that ``charts.py`` lists.
May import ``costmodel``, ``planner``, streamlit and plotly; never torch, triton or ``executor``.
"""
