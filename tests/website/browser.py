"""A headless Chromium, driven by Selenium, for the tests of the site."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_browser() -> str:
    """Return a sentence that says what is missing; empty if a browser can be driven."""
    if find_spec("selenium") is None:
        return "selenium is not installed: pip install 'satbench[dev]'"
    if _chromium() is None:
        return f"no browser is installed: expected one of {', '.join(NAMES)}"
    if _chromedriver() is None:
        return "chromedriver is not installed"
    return ""


def _chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def _chromedriver() -> str | None:
    folder = os.environ.get("CHROMEWEBDRIVER", "")  # its place on GitHub's machines
    return shutil.which("chromedriver", path=folder) or shutil.which("chromedriver")


class Browser:
    """An open browser; `driver` is Selenium's own."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(
        self, page: Path | str, query: str = "", *, width: int = 1280, dark: bool = False
    ) -> None:
        """Open a page from disk, or at an address, in a window of the given width."""
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.said(), self.asked()
        self.driver.get((page.as_uri() if isinstance(page, Path) else page) + query)

    def run(self, script: str, *given: object) -> Any:
        """Run a script in the page and return its result."""
        return self.driver.execute_script(script, *given)

    def said(self) -> list[str]:
        """Return the console messages since the last call."""
        return [one["message"] for one in self.driver.get_log("browser")]

    def asked(self) -> set[str]:
        """Return the addresses that pages requested since the last call."""
        events = (json.loads(one["message"]) for one in self.driver.get_log("performance"))
        found = (one["message"] for one in events)
        return {
            one["params"]["request"]["url"]
            for one in found
            if one["method"] == "Network.requestWillBeSent"
        }

    def faults(self) -> list[str]:
        """Return axe-core's violations of WCAG 2.1 AA and good practice on the open page."""
        package = find_spec("axe_core_python")
        assert package is not None, "axe-core-python is not installed: pip install 'satbench[dev]'"
        assert package.origin is not None
        script = (Path(package.origin).parent / "axe.min.js").read_text(encoding="utf-8")
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
        self.run(script)
        found = self.driver.execute_async_script(
            """const [tags, done] = arguments;
            axe.run(document, { runOnly: tags, resultTypes: ["violations"] }).then(
                (result) => done(result.violations),
                (error) => done([{ id: String(error), nodes: [] }]));""",
            tags,
        )
        return [
            f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for one in found
            for node in one["nodes"] or [{"html": "", "failureSummary": ""}]
        ]

    def seconds(self) -> float:
        """Return the processor time of the page, which does not depend on other programs."""
        told = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return float(next(one["value"] for one in told if one["name"] == "TaskDuration"))


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Yield a browser, and close it at the end."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _chromium()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_chromedriver()))
    try:
        driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        yield Browser(driver)
    finally:
        driver.quit()
