"""The dashboard in a real browser: what a person sees when something changes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.service import Service, write_skill

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """The dashboard, opened, with whatever it complains about collected."""
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(service.url)
    yield opened
    if folder := os.environ.get("SKILLWIRE_SCREENSHOTS"):
        opened.screenshot(
            path=str(Path(folder) / f"{os.environ['PYTEST_CURRENT_TEST'].split('::')[-1].split()[0]}.png")
        )
    opened.close()
    assert complaints == []


def test_a_saved_skill_appears_without_a_reload(page: Page, skills: Path) -> None:
    page.get_by_role("link", name="Catalog", exact=True).click()
    expect(page.get_by_text("main/hello-world")).to_be_visible()
    expect(page.get_by_text("main/seen-live")).to_have_count(0)
    write_skill(skills, "seen-live", "Appears while you look.")
    expect(page.get_by_text("main/seen-live")).to_be_visible()


def test_an_event_is_shown_as_it_happens(page: Page, skills: Path) -> None:
    page.get_by_role("link", name="Events", exact=True).click()
    expect(page.get_by_text("live", exact=True).first).to_be_visible()
    write_skill(skills, "just-now", "Happens while you look.")
    expect(page.get_by_text("skill.published").first).to_be_visible()
    expect(page.get_by_text("main/just-now").first).to_be_visible()


def test_a_skill_is_followed_through_the_tiers(page: Page) -> None:
    page.goto(f"{page.url.partition('#')[0]}#/catalog/main/hello-world?tab=trace")
    page.get_by_role("button", name="Read it now").click()
    expect(page.get_by_text("memory answered").first).to_be_visible()


def test_the_overview_shows_the_replica_that_serves_it_as_it_reports(page: Page) -> None:
    expect(page.get_by_text("serves this page")).to_be_visible()
