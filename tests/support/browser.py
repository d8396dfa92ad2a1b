"""A real browser, for tests of pages. Screenshots are written to ``.test/screenshots``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.documentation import ROOT
from tests.support.services import find, missing

if absent := missing("chromium"):
    pytest.skip(absent, allow_module_level=True)

from playwright.sync_api import Page, expect, sync_playwright

SCREENSHOTS = ROOT / ".test" / "screenshots"
SWITCHES = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"
TIMEOUT = 30_000
"""Milliseconds."""


@contextmanager
def open_page(url: str, **options: Any) -> Iterator[Page]:
    """Open a browser with one page, whose relative addresses belong to a URL."""
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find("chromium"), args=SWITCHES.split())
        page = browser.new_page(base_url=url, viewport={"width": 1100, "height": 760}, **options)
        page.set_default_timeout(TIMEOUT)
        yield page
        browser.close()


def picture(page: Page, name: str) -> None:
    """Write a screenshot."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
