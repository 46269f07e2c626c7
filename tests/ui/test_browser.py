"""The real dashboard in a real browser: choose, read, take the plan, upload a table; every page in both themes.

Pictures of every page are left in ``out/screenshots``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, FLAGS, dashboard
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from costmodel.schema.plan import Plan

PICTURES = Path(__file__).parents[2] / "out" / "screenshots"
PAGES = ("Answer", "Why", "Alternatives", "Trust")
WIDTHS = (1280, 1920)
SLOW_MS = 120_000

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: apt-get install chromium, or any Chrome on the path"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dashboard(tmp_path_factory.mktemp("cache")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        found.close()


@pytest.fixture(scope="module")
def tabs(browser: Browser) -> BrowserContext:
    """One user's tabs: what the first has loaded, the others have at once."""
    return browser.new_context(viewport={"width": 1280, "height": 1000}, color_scheme="light")


def settled(page: Page) -> None:
    """Until the page has drawn its figures and nothing runs any more; whatever went wrong fails here."""
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=SLOW_MS)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=SLOW_MS)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_a_user_chooses_reads_and_takes_the_plan(tabs: BrowserContext, address: str, tmp_path: Path) -> None:
    page = tabs.new_page()
    page.goto(address)
    settled(page)
    headline = page.locator("h1")
    expect(page.get_by_test_id("stMarkdown").first).to_contain_text("llama-3.1-70b on 64 × h100", timeout=SLOW_MS)

    model = page.get_by_role("combobox", name=re.compile("Model"))
    model.fill("llama-3.1-8b")
    page.get_by_role("option", name="llama-3.1-8b", exact=True).click()
    expect(page.get_by_text("llama-3.1-8b on 64 × h100")).to_be_visible(timeout=SLOW_MS)
    gpus = page.get_by_label("How many", exact=True)
    gpus.fill("8")
    gpus.press("Enter")
    expect(page.get_by_text("llama-3.1-8b on 8 × h100")).to_be_visible(timeout=SLOW_MS)
    settled(page)
    assert "model=llama-3.1-8b" in page.url
    assert "gpus=8" in page.url
    said = headline.inner_text()

    with page.expect_download() as download:
        page.get_by_role("button", name="Plan").click()
    plan = Plan.model_validate_json(Path(download.value.path()).read_text(encoding="utf-8"))
    assert (plan.model.name, plan.cluster.num_devices) == ("llama-3.1-8b", 8)
    with page.expect_download() as download:
        page.get_by_role("button", name="Trace").click()
    assert json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["traceEvents"]

    page.get_by_role("link", name="Trust").click()
    expect(page.get_by_text("published training runs")).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("tab", name="Your own runs").click()
    table = tmp_path / "mine.csv"
    table.write_text("id,model,gpu,gpus,seq_len,global_batch,step_time_s\nmine,llama-7b,h100,8,2048,64,1.5\n")
    page.locator("input[type=file]").set_input_files(table)
    expect(page.get_by_text("1 of 1 rows priced")).to_be_visible(timeout=SLOW_MS)
    page.screenshot(path=PICTURES / "own-runs.png")

    page.get_by_role("link", name="Answer").click()
    expect(page.get_by_text("llama-3.1-8b on 8 × h100")).to_be_visible(timeout=SLOW_MS)
    assert headline.inner_text() == said
    page.close()


def test_a_shared_address_shows_the_same_view(tabs: BrowserContext, address: str) -> None:
    page = tabs.new_page()
    page.goto(f"{address}/?model=llama-3.1-8b&gpus=8&seq_len=4096")
    expect(page.get_by_text(re.compile("llama-3.1-8b on 8 × h100.*4,096 tokens"))).to_be_visible(timeout=SLOW_MS)
    page.goto(f"{address}/?gpus=63")
    expect(page.get_by_test_id("stSidebar").get_by_text("does not fill nodes")).to_be_visible(timeout=SLOW_MS)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_stands_in_both_themes_at_both_widths(browser: Browser, address: str, scheme: str) -> None:
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 1400}, color_scheme=scheme)  # type: ignore[arg-type]
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    for name in PAGES:
        settled(page)
        page.get_by_role("link", name=name).click()
        settled(page)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 1400})
            page.wait_for_timeout(600)
            page.screenshot(path=PICTURES / f"{name.lower()}-{scheme}-{width}.png")
            spills = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
            assert not spills, f"{name} is wider than {width}"
    assert not complaints
    page.close()
