"""The dashboard in Streamlit's own harness, opened at an address."""

from __future__ import annotations

from pathlib import Path

from streamlit.testing.v1 import AppTest

import ui

APP = str(Path(ui.__file__).parent / "app.py")


def opened(page: str = "", **address: str) -> AppTest:
    """The app as it draws a page - its title in lower case, the opening one by default - for an address."""
    app = AppTest.from_file(APP, default_timeout=60)
    for name, value in address.items():
        app.query_params[name] = value
    app.run()
    if page:
        turn(app, page)
    assert not app.exception
    return app


def turn(app: AppTest, page: str) -> None:
    """Another page of an open app. The harness's own way there knows pages that are files alone."""
    known = {info["url_pathname"]: place for place, info in app._registered_pages.items()}
    app._page_hash = known[page]
    app.run()
