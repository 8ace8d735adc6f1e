"""Shared fixtures of the tests of sources: a server on this machine, and separate folders."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from serving import Server

_connect = socket.socket.connect  # the original, before the tests block the network


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on this machine; connections to any other are refused."""

    def connect(self: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] == "127.0.0.1"
        _connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    served = Server()
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture(autouse=True)
def _folders_of_the_test(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep the user's own zoo, cache and trust out of the tests."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SATBENCH_CACHE", str(home / "cache"))
    monkeypatch.setenv("SATBENCH_ZOO", str(home / "zoo"))
    monkeypatch.delenv("SATBENCH_TRUST", raising=False)
    monkeypatch.delenv("SATBENCH_ROBUSTBENCH", raising=False)
