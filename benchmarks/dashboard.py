"""How soon the dashboard answers, in a headless browser: from opening to a plan, and from a change to the next.

    python benchmarks/dashboard.py [--repeat N]

Needs Chromium and the extras ``ui`` and ``dev``. Prints, for 70B on 64 GPUs: seconds from starting ``plan ui`` to the
first plan on the page, from opening a page in a running one, and from a change of the batch to its plan; and from a
click to each page's first figure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "ui"))

SLOW_MS = 60_000
TITLE = "h1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="openings and changes timed; their median is printed")
    arguments = parser.parse_args()
    from browser import CHROMIUM, FLAGS, dashboard
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        sys.exit("benchmarks/dashboard.py needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as cache, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        warm = browser.new_page()
        warm.goto("about:blank")
        began = time.perf_counter()
        with dashboard(Path(cache)) as address:
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.goto(address)
            _planned(page, 512)
            print(f"{'plan ui to the first plan':<40}{time.perf_counter() - began:>7.2f} s")
            page.close()

            def opened() -> None:
                other = browser.new_page(viewport={"width": 1280, "height": 1000})
                other.goto(address)
                _planned(other, 512)
                other.close()

            print(f"{'a page opened: its plan':<40}{_median(opened, arguments.repeat):>7.2f} s")
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.goto(address)
            _planned(page, 512)
            batches = iter(range(576, 576 + 64 * arguments.repeat, 64))

            def changed() -> None:
                batch = next(batches)
                field = page.get_by_label("Sequences a step", exact=True)
                field.fill(str(batch))
                field.press("Enter")
                _planned(page, batch)

            print(f"{'a change: its plan, searched':<40}{_median(changed, arguments.repeat):>7.2f} s")
            for name in ("Why", "Alternatives", "Trust", "Answer"):
                began = time.perf_counter()
                page.get_by_role("link", name=name).click()
                page.wait_for_url(f"**/{'' if name == 'Answer' else name.lower()}?**")
                page.locator(".js-plotly-plot").first.wait_for(timeout=SLOW_MS)
                print(f"{'the page ' + name:<40}{time.perf_counter() - began:>7.2f} s")
        browser.close()


def _planned(page: Page, batch: int) -> None:
    """Until the page says its plan for this batch, with figures."""
    page.get_by_text(f"{batch} sequences a step").first.wait_for(timeout=SLOW_MS)
    page.get_by_test_id("stMetric").first.wait_for(timeout=SLOW_MS)


def _median(work: Callable[[], None], repeat: int) -> float:
    spans = []
    for _ in range(repeat):
        began = time.perf_counter()
        work()
        spans.append(time.perf_counter() - began)
    return median(spans)


if __name__ == "__main__":
    main()
