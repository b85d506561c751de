"""The page in a browser: Debian's Chromium, headless; skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served_run import CLASSES, SECRETS, dicom, png
from serving import Served

sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
LONG = bool(os.environ.get("MSMAE_LONG"))
SIZES = [(1280, 900), (390, 844), (2560, 1440)] if LONG else [(1280, 900)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: tests/serve/chromium.sh"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh page; what it logs, and any request that leaves the server, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    found = context.new_page()
    wrong: list[str] = []
    refused = "the server responded with a status of 422"
    found.on("console", lambda message: wrong.append(message.text) if refused not in message.text else None)
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("request", lambda request: wrong.append(request.url) if not local(request.url) else None)
    yield found
    context.close()
    assert wrong == []


def local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def upload(page: Any, server: Served, *files: tuple[str, bytes]) -> None:
    """Open the page and give it files."""
    page.goto(server.url)
    page.wait_for_selector("body.ready")
    give(page, *files)
    page.wait_for_selector("#work:not([hidden])")


def give(page: Any, *files: tuple[str, bytes]) -> None:
    page.set_input_files("#files", [{"name": name, "mimeType": "", "buffer": content} for name, content in files])


def picture(page: Any) -> str:
    """What the canvas shows."""
    shown: str = page.evaluate("document.getElementById('canvas').toDataURL()")
    return shown


def test_an_image_is_answered_and_looked_through(page: Any, server: Served) -> None:
    upload(page, server, ("scan.png", png(1)))
    answer = server.predict(("scan.png", png(1))).json()["images"][0]
    likeliest = max(answer["probabilities"], key=answer["probabilities"].get)
    assert page.inner_text("#image-answer .what") == likeliest
    assert page.locator("#image-answer .bars li").count() == len(CLASSES)
    assert page.locator("#image-answer .bars .inside").count() == len(answer["conformal_set"])
    assert page.inner_text("#keep-value").startswith("100%")  # of a model that was not prepared for less
    with page.expect_response("**/predict"):
        page.fill("#keep", "50")
    page.get_by_text("32 of 64 patches", exact=False).first.wait_for()
    shown = [picture(page)]
    for name in ("Attention", "Kept patches", "Reconstruction"):
        page.get_by_role("button", name=name).click()
        assert page.get_attribute("#view", "aria-valuetext") == name
        shown.append(picture(page))
    assert len(set(shown)) == 4
    assert page.locator("#cases-list li").count() == 4


def test_the_knob_changes_the_answer_and_what_is_kept(page: Any, server: Served) -> None:
    upload(page, server, ("scan.png", png(1)))
    page.get_by_role("button", name="Kept patches").click()
    before = picture(page), page.inner_text("#keep-value")
    with page.expect_response("**/predict"):
        page.fill("#keep", "60")
    page.get_by_text("38 of 64 patches", exact=False).first.wait_for()
    assert (picture(page), page.inner_text("#keep-value")) != before
    assert "60%" in page.inner_text("#knob-answer")


def test_the_window_changes_the_picture_and_not_the_answer(page: Any, dicom_server: Served) -> None:
    upload(page, dicom_server, ("scan.dcm", dicom(1)))
    before, answer = picture(page), page.inner_text("#image-answer")
    page.get_by_role("button", name="lung").click()
    assert picture(page) != before
    assert page.inner_text("#image-answer") == answer
    page.get_by_role("button", name="as in the file").click()
    assert picture(page) == before
    assert not any(secret in page.content() for secret in SECRETS)


def test_two_images_are_one_patient(page: Any, server: Served) -> None:
    upload(page, server, ("left.png", png(1)), ("right.png", png(2)))
    assert page.is_visible("#patient")
    assert page.locator("#thumbs button").count() == 2
    first = picture(page)
    page.get_by_role("button", name="Image 1: left.png").click()
    assert picture(page) != first
    give(page, ("third.png", png(3)))
    page.locator("#thumbs button").nth(2).wait_for()


def test_a_text_file_is_refused_kindly_and_its_name_is_only_text(page: Any, server: Served) -> None:
    page.goto(server.url)
    page.wait_for_selector("body.ready")
    give(page, ("<b onclick=x>notes<b>.txt", b"a letter"))
    page.wait_for_selector("#alert:not([hidden])")
    assert page.inner_text("#alert").startswith("<b onclick=x>notes<b>.txt: this is not an image")
    assert page.locator("#alert b").count() == 0
    assert page.is_visible("#welcome")
    give(page, ("good.png", png(1)), ("notes.txt", b"a letter"))
    page.wait_for_selector("#work:not([hidden])")
    assert "notes.txt" in page.inner_text("#alert")


def test_a_segmenter_s_outline_is_drawn(page: Any, segment_server: Served) -> None:
    upload(page, segment_server, ("scan.png", png(1)))
    before = picture(page)
    page.get_by_role("button", name="Outline").click()
    share = segment_server.predict(("scan.png", png(1))).json()["images"][0]["layers"]["lesion"]["share"]
    assert (picture(page) != before) == (share > 0)
    assert page.is_hidden("#knob")


def test_the_keyboard_is_enough(page: Any, server: Served) -> None:
    upload(page, server, ("left.png", png(1)), ("right.png", png(2)))
    page.evaluate("document.body.focus()")
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"add", "again", "view", "keep"} <= set(reached)
    page.focus("#view")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#view", "aria-valuetext") == "Attention"
    page.focus("#thumbs button")
    page.keyboard.press("Enter")
    assert page.get_attribute("#thumbs button", "aria-pressed") == "true"
    page.focus("#keep")
    with page.expect_response("**/predict"):
        page.keyboard.press("ArrowLeft")
    page.focus("#again")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "choose"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_runs_over(browser: Any, server: Served, scheme: str, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the package axe is not installed")
    for width, height in SIZES:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce"
        )
        page = context.new_page()
        page.goto(server.url)
        page.wait_for_selector("body.ready")
        problems = axe.Axe().run(page).response["violations"]
        upload(page, server, ("left.png", png(1)), ("right.png", png(2)))
        problems += axe.Axe().run(page).response["violations"]
        assert [(problem["id"], [node["target"] for node in problem["nodes"]]) for problem in problems] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
        context.close()
