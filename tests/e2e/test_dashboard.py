"""The dashboard in a real browser: what a person sees when something changes."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
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


def open_tab(page: Page, skill: str, tab: str) -> None:
    """Of a skill that the catalog has, or will have in a moment."""
    start = page.url.partition("#")[0]
    page.goto(f"{start}#/catalog")
    expect(page.get_by_text(skill, exact=True)).to_be_visible()
    page.goto(f"{start}#/catalog/{skill}?tab={tab}")


def test_versions_are_compared_pinned_exported_and_rolled_back(page: Page, skills: Path, tmp_path: Path) -> None:
    write_skill(skills, "evolving", body="The first way.")
    open_tab(page, "main/evolving", "versions")
    expect(page.get_by_role("listitem", name="Version 1")).to_be_visible()
    write_skill(skills, "evolving", body="The second way.")
    newest = page.get_by_role("listitem", name="Version 2")
    expect(newest.get_by_text("active", exact=True)).to_be_visible()

    newest.get_by_role("link", name="Compare with v1").click()
    comparison = page.get_by_role("region", name="From v1 to v2")
    expect(comparison.get_by_text("+The second way.")).to_be_visible()
    expect(comparison.get_by_text("-The first way.")).to_be_visible()
    comparison.get_by_role("combobox", name="To version").select_option("v1")
    expect(page.get_by_text("v1 and v1 hold the same")).to_be_visible()
    page.get_by_role("region", name="From v1 to v1").get_by_role("link", name="Close").click()

    # By keyboard alone: what is asked takes the focus, and gives it back.
    oldest = page.get_by_role("listitem", name="Version 1")
    oldest.get_by_role("button", name="Pin").press("Enter")
    expect(oldest.get_by_text("pinned", exact=True)).to_be_visible()
    oldest.get_by_role("button", name="Unpin", exact=True).press("Enter")
    expect(oldest.get_by_role("button", name="Unpin v1")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(oldest.get_by_role("button", name="Unpin", exact=True)).to_be_focused()
    oldest.get_by_role("button", name="Unpin", exact=True).press("Enter")
    page.keyboard.press("Enter")
    expect(oldest.get_by_text("pinned", exact=True)).to_have_count(0)

    with page.expect_download() as download:
        oldest.get_by_role("button", name="Export zip").click()
    assert download.value.suggested_filename == "evolving-1.zip"
    download.value.save_as(tmp_path / "v1.zip")
    with zipfile.ZipFile(tmp_path / "v1.zip") as archive:
        assert any(b"The first way." in archive.read(name) for name in archive.namelist())

    oldest.get_by_role("button", name="Roll back").click()
    oldest.get_by_role("button", name="Roll back to v1").click()
    expect(oldest.get_by_text("active", exact=True)).to_be_visible()


def test_a_deleted_skill_is_restored(page: Page, service: Service, skills: Path) -> None:
    write_skill(skills, "regretted")
    open_tab(page, "main/regretted", "versions")
    expect(page.get_by_role("listitem", name="Version 1")).to_be_visible()
    httpx2.delete(f"{service.url}/api/v1/skills/main/regretted").raise_for_status()
    expect(page.get_by_text("no agent gets it")).to_be_visible()
    page.get_by_role("button", name="Restore", exact=True).click()
    page.get_by_role("button", name="Restore v1").click()
    expect(page.get_by_text("no agent gets it")).to_have_count(0)
    expect(page.get_by_role("listitem", name="Version 1").get_by_text("active", exact=True)).to_be_visible()


def test_usage_shows_calls_by_outcome_and_version(page: Page, service: Service) -> None:
    open_tab(page, "main/calculator", "usage")
    expect(page.get_by_text("Nothing has called main/calculator yet")).to_be_visible()
    for expression in ("1+1", "2*3", "1/0"):
        call = {"arguments": {"expression": expression}}
        httpx2.post(f"{service.url}/api/v1/tools/main_calculator_evaluate/call", json=call, timeout=20)
    page.reload()
    outcomes = page.get_by_role("list", name="Calls by outcome").get_by_role("listitem")
    expect(outcomes.first).to_have_text("ok 2")
    expect(outcomes).to_have_count(2)
    expect(page.get_by_role("img", name="3 calls since")).to_be_visible()
    expect(page.get_by_role("row", name="v1 3 1")).to_be_visible()


def test_the_audit_screen_tells_who_changed_what_as_it_is_sealed(page: Page, service: Service, skills: Path) -> None:
    write_skill(skills, "audited", body="The first way.")
    open_tab(page, "main/audited", "versions")
    page.goto(f"{page.url.partition('#')[0]}#/audit?skill=main/audited")
    expect(page.get_by_role("row", name="published v1")).to_contain_text("watcher")
    write_skill(skills, "audited", body="The second way.")
    published = page.get_by_role("row", name="published v2")
    expect(published).to_be_visible()
    rollback = httpx2.post(f"{service.url}/api/v1/skills/main/audited/rollback", json={"version": 1})
    rollback.raise_for_status()
    activated = page.get_by_role("row", name="activated v1")
    expect(activated).to_contain_text("local")
    expect(published).to_be_visible()

    page.get_by_role("combobox", name="Kind").select_option("skill published")
    expect(activated).to_have_count(0)
    assert page.url.endswith("#/audit?skill=main%2Faudited&kind=skill.published")
    opener = published.get_by_role("button", name="published v2")
    opener.press("Enter")
    expect(opener).to_have_attribute("aria-expanded", "true")
    expect(page.get_by_text('"active_version": 2')).to_be_visible()
    answer = httpx2.get(f"{service.url}/api/v1/audit", params={"skill": "main/audited", "kind": "skill.published"})
    newest = answer.json()["data"]["items"][0]
    expect(page.get_by_role("button", name="Copy the hash", exact=True)).to_have_text(newest["hash"])
