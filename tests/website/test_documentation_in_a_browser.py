"""The documentation site in a browser: on a screen, a tablet and a phone, light and dark."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from browser import Browser

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = (
    "",
    "tutorial/",
    "how-to/own-model/",
    "reference/cli/",
    "reference/python/",
    "studies/activations/",
    "models/",
    "models/fmnist-sat-tiny-silu-s0/",
)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the site, built and served on this machine."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("documents")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("page", PAGES)
def test_no_page_scrolls_sideways_or_writes_to_the_console(
    browser: Browser, documents: str, page: str
) -> None:
    for width in (390, 768, 1280):
        browser.open(documents + page, width=width)
        across = browser.run("return document.documentElement.scrollWidth")

        assert across <= width
        assert browser.said() == []
        assert all(one.startswith((documents, "data:")) for one in browser.asked())


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_enough_contrast(browser: Browser, documents: str, dark: bool) -> None:
    pages = (
        "tutorial/",
        "reference/python/",
        "studies/activations/",
        "decisions/",
        "how-to/browse/",
    )
    for page in pages:
        browser.open(documents + page, dark=dark)
        browser.run("localStorage.clear()")
        browser.open(documents + page, dark=dark)

        assert browser.run("return document.body.dataset.mdColorScheme") == _scheme(dark)
        assert [one for one in browser.faults() if one.startswith("color-contrast")] == []


def test_the_site_follows_the_colour_scheme_of_the_system(browser: Browser, documents: str) -> None:
    for dark in (False, True, False):
        browser.open(documents, dark=dark)

        assert browser.run("return document.body.dataset.mdColorScheme") == _scheme(dark)


def _scheme(dark: bool) -> str:
    return "slate" if dark else "default"


@pytest.mark.parametrize("page", ["reference/cli/", "models/"])
def test_on_a_screen_help_and_the_table_of_models_are_not_cut(
    browser: Browser, documents: str, page: str
) -> None:
    browser.open(documents + page, width=1280)
    cut = browser.run(
        """return [...document.querySelectorAll("pre code, .md-typeset__scrollwrap")]
        .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.innerText)"""
    )

    assert cut == []


def test_on_a_phone_a_table_without_a_head_is_not_cut(browser: Browser, documents: str) -> None:
    for page in ("models/fmnist-sat-tiny-silu-s0/", "studies/scaling/"):
        browser.open(documents + page, width=390)
        cut = browser.run(
            """return [...document.querySelectorAll(".md-typeset__scrollwrap")]
            .filter((one) => !one.querySelector("thead")?.offsetHeight)
            .map((one) => one.scrollWidth - one.clientWidth)"""
        )

        assert cut
        assert max(cut) <= 1


def test_no_table_has_an_empty_header(browser: Browser, documents: str) -> None:
    for page in ("studies/activations/", "models/fmnist-sat-tiny-silu-s0/"):
        browser.open(documents + page)
        heads = browser.run(
            """return [...document.querySelectorAll("thead")].filter((one) => one.offsetHeight)
            .map((one) => one.innerText.trim())"""
        )

        assert heads
        assert all(heads)
