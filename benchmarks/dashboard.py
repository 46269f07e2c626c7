"""How soon the dashboard answers, in a headless browser that draws on the processor, as seconds for 70B on 64 GPUs.

    python benchmarks/dashboard.py [--repeat N]

Needs Chromium and the extras ``ui`` and ``dev``. From three beginnings - `plan ui` started, a page opened for the first
time by a browser, a batch size changed on a page at rest - to the plan's line and to its charts; then from a click to
each page's first chart. Medians of N but for the first line.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "ui"))

SLOW_MS = 60_000
VIEW = {"width": 1280, "height": 1000}
FIRST_BATCH, BATCH_STEP = 512, 64


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
        browser.new_page().goto("about:blank")
        print(f"{'':<32}{'the plan':>10}{'its charts':>12}")
        began = time.perf_counter()
        with dashboard(Path(cache)) as address:
            page = browser.new_page(viewport=VIEW)
            page.goto(address)
            _print("plan ui started", [_planned(page, FIRST_BATCH, began)])
            page.close()
            spans = []
            for _ in range(arguments.repeat):
                began = time.perf_counter()
                page = browser.new_page(viewport=VIEW)
                page.goto(address)
                spans.append(_planned(page, FIRST_BATCH, began))
                page.close()
            _print("a page opened", spans)
            page = browser.new_page(viewport=VIEW)
            page.goto(address)
            _planned(page, FIRST_BATCH, began)
            spans = []
            for turn in range(1, arguments.repeat + 1):
                batch = FIRST_BATCH + turn * BATCH_STEP
                page.get_by_test_id("stStatusWidget").wait_for(state="detached", timeout=SLOW_MS)
                began = time.perf_counter()
                field = page.get_by_label("Sequences a step", exact=True)
                field.fill(str(batch))
                field.press("Enter")
                spans.append(_planned(page, batch, began))
            _print("a change, searched", spans)
            for name in ("Why", "Alternatives", "Trust", "Answer"):
                began = time.perf_counter()
                page.get_by_role("link", name=name).click()
                page.wait_for_url(f"**/{'' if name == 'Answer' else name.lower()}?**")
                page.locator(".js-plotly-plot").first.wait_for(timeout=SLOW_MS)
                print(f"{'the page ' + name:<42}{time.perf_counter() - began:>12.2f}")
        browser.close()


def _planned(page: Page, batch: int, began: float) -> tuple[float, float]:
    """Seconds until the page has its plan for this batch, and until it has charts."""
    page.get_by_text(f"{batch} sequences a step").first.wait_for(timeout=SLOW_MS)
    plan_s = time.perf_counter() - began
    page.locator(".js-plotly-plot").first.wait_for(timeout=SLOW_MS)
    return plan_s, time.perf_counter() - began


def _print(name: str, spans: list[tuple[float, float]]) -> None:
    plan_s, charts_s = (median(part) for part in zip(*spans, strict=True))
    print(f"{name:<32}{plan_s:>10.2f}{charts_s:>12.2f}")


if __name__ == "__main__":
    main()
