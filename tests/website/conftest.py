"""Sites of synthetic records, and a browser to open them with."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Browser, find_browser, open_browser

from satbench.board.board import Board, build_board
from satbench.records.record import Record
from satbench.website.board_page import SiteBoard
from satbench.website.build import site_files, write_site

MakeRecord = Callable[..., Record]
HOSTILE = "<img src=x onerror=alert(1)>\"'&\u202e{{ 7*7 }}</script>"


_connect = socket.socket.connect  # the original, before the tests block the network


@pytest.fixture(scope="package")
def _loopback() -> Iterator[None]:
    """Let Selenium reach the browser through the loopback of this machine, and nothing else."""

    def only_loopback(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test opened a connection to {address}")
        _connect(self, address)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", only_loopback)
        yield


@pytest.fixture(scope="package")
def browser(_loopback: None) -> Iterator[Browser]:
    """A headless Chromium; without one, tests that need it are skipped.

    With SATBENCH_NEEDS_BROWSER they fail instead, so that a workflow cannot pass without them.
    """
    missing = find_browser()
    if missing and os.environ.get("SATBENCH_NEEDS_BROWSER"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def site(small_records: Sequence[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site made of `small_records`, one of them with a hostile name."""
    pytest.importorskip("itables")
    named = [
        replace(one, model=replace(one.model, name=HOSTILE)) if "model" in one.model.name else one
        for one in small_records
    ]
    folder = tmp_path_factory.mktemp("site") / "a folder ü"
    boards = [
        SiteBoard(f"board-{number}", one)
        for number, one in enumerate(build_board(named).benchmarks)
    ]
    write_site(site_files(boards), folder)
    return folder


@pytest.fixture(scope="session")
def many_rows(small_board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a board of 1,000 models."""
    pytest.importorskip("itables")
    (benchmark,) = (one for one in small_board.benchmarks if len(one.rows) > 3)
    rows = [
        replace(row, model=replace(row.model, name=f"model {number:04}"))
        for number in range(1000)
        for row in [benchmark.rows[number % len(benchmark.rows)]]
    ]
    folder = tmp_path_factory.mktemp("many")
    board = SiteBoard("many", replace(benchmark, rows=tuple(rows)))
    write_site(site_files([board]), folder)
    return folder / board.place
