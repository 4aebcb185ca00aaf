"""A headless Chromium for tests of pages. Where there is none they are skipped, unless OFFSIM_BROWSER is "required"."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVERS = ("chromedriver", "chromium.chromedriver")
# No network, nothing left over from other runs.
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)


@contextmanager
def browser(folder: Path) -> Iterator[Chrome]:
    """A browser with its profile in this folder."""
    binary, driver = _found(BROWSERS), _found(DRIVERS)
    if binary is None or driver is None:
        missing = " or ".join(BROWSERS if binary is None else DRIVERS)
        (pytest.fail if os.environ.get("OFFSIM_BROWSER") == "required" else pytest.skip)(f"no {missing} on PATH")
    options = Options()
    options.binary_location = binary
    for switch in (*SWITCHES, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With both paths given, Selenium looks for no other driver and downloads none.
    chrome = Chrome(service=Service(driver), options=options)
    try:
        yield chrome
    finally:
        chrome.quit()


def _found(names: tuple[str, ...]) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


def printed(chrome: Chrome) -> list[str]:
    """The text of each page that the browser prints."""
    result: Any = chrome.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    return [page.extract_text() for page in PdfReader(BytesIO(base64.b64decode(result["data"]))).pages]
