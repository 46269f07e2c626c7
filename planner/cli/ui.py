"""``plan ui``: the dashboard."""

from __future__ import annotations

from typing import Annotated

import typer

from costmodel.schema.errors import InvalidSpec


def ui(
    port: Annotated[int, typer.Option(metavar="N", help="The port that it answers on.")] = 8501,
    address: Annotated[
        str, typer.Option(metavar="HOST", help="The address that it listens on; 0.0.0.0: for others too.")
    ] = "localhost",
    browser: Annotated[bool, typer.Option(help="Open a browser on it.")] = True,
) -> None:
    """Explore plans in a browser: choose, see why, compare, judge how far to trust it."""
    import socket
    import subprocess
    import sys
    from importlib.util import find_spec

    if not 1 <= port <= 65535:
        raise InvalidSpec(f"--port {port}: must be from 1 to 65535")
    missing = [name for name in ("streamlit", "plotly") if find_spec(name) is None]
    if missing:
        raise InvalidSpec(f"plan ui needs {' and '.join(missing)}, not installed here", "pip install 'parlay[ui]'")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InvalidSpec(f"--address {address} --port {port}: {reason}", "take another with --port") from None
    page = find_spec("ui.app")
    assert page is not None
    assert page.origin is not None
    arguments = {
        "server.port": port,
        "server.address": address,
        "server.headless": not browser,
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": False,
    }
    flags = [f"--{name}={str(value).lower()}" for name, value in arguments.items()]
    raise typer.Exit(subprocess.call([sys.executable, "-m", "streamlit", "run", page.origin, *flags]))
