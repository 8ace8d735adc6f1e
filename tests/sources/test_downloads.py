"""Downloads that are interrupted, resumed, or return a wrong file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from serving import Server

from satbench.core.downloads import TRIES, cache_folder, download, sha256_check
from satbench.core.errors import SatbenchError

DATA = bytes(range(256)) * 4000
PREFIX = hashlib.sha256(DATA).hexdigest()[:10]
PART = "w.part.safetensors"


@pytest.fixture
def path(tmp_path: Path, server: Server) -> Path:
    """Return where the download of `w`, which is DATA, belongs."""
    server.files["w"] = DATA
    return tmp_path / "folder" / "w.safetensors"


def fetch(server: Server, path: Path, prefix: str = PREFIX) -> bytes:
    return download(server.url("w"), path, sha256_check(prefix)).read_bytes()


def leftovers(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if not p.name.startswith("."))


def test_a_whole_file_is_downloaded(server: Server, path: Path) -> None:
    assert fetch(server, path) == DATA
    assert leftovers(path) == ["w.safetensors"]


def test_a_file_that_is_present_is_not_downloaded_again(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"here")

    assert fetch(server, path) == b"here"
    assert server.asked == []


def test_an_interrupted_transfer_resumes_where_it_stopped(server: Server, path: Path) -> None:
    server.breaks = [300_000, 200_000]

    assert fetch(server, path) == DATA
    assert server.asked == ["", "bytes=300000-", "bytes=500000-"]


def test_the_next_command_resumes_an_interrupted_download(server: Server, path: Path) -> None:
    path.parent.mkdir()
    (path.parent / PART).write_bytes(DATA[:1000])

    assert fetch(server, path) == DATA
    assert server.asked == ["bytes=1000-"]


def test_a_partial_file_is_kept_for_the_next_command_if_the_connection_dies(
    server: Server, path: Path
) -> None:
    server.breaks = [1000] + [0] * TRIES
    with pytest.raises(
        SatbenchError, match=r"cannot be fetched \(.+\); the same command continues"
    ):
        fetch(server, path)
    assert not path.exists()

    assert fetch(server, path) == DATA
    assert server.asked[-1] == "bytes=1000-"


def test_a_server_without_ranges_sends_the_whole_file_again(server: Server, path: Path) -> None:
    server.breaks, server.ranges = [300_000], False

    assert fetch(server, path) == DATA
    assert server.asked == ["", "bytes=300000-"]


def test_a_server_without_ranges_is_given_up_if_every_transfer_breaks_off(
    server: Server, path: Path
) -> None:
    server.breaks, server.ranges = [500, 400] * 20, False
    with pytest.raises(SatbenchError, match=r"cannot be fetched \(the connection broke off\)"):
        fetch(server, path)
    assert len(server.asked) == 1 + TRIES


@pytest.mark.parametrize("begun", [b"of another file", b"x" * (len(DATA) + 5), b"x" * len(DATA)])
def test_a_partial_download_of_another_file_is_discarded(
    begun: bytes, server: Server, path: Path
) -> None:
    path.parent.mkdir()
    (path.parent / PART).write_bytes(begun)

    assert fetch(server, path) == DATA


def test_a_file_with_a_wrong_digest_is_refused_and_deleted(server: Server, path: Path) -> None:
    with pytest.raises(
        SatbenchError, match=r"^expected a file whose SHA-256 begins with abcdef0123, got "
    ):
        fetch(server, path, "abcdef0123")
    assert leftovers(path) == []
    assert len(server.asked) == 1


def test_a_resumed_file_with_a_wrong_digest_is_refused_and_deleted(
    server: Server, path: Path
) -> None:
    path.parent.mkdir()
    (path.parent / PART).write_bytes(DATA[:7])
    with pytest.raises(SatbenchError, match=r"^expected a file whose SHA-256 begins with"):
        fetch(server, path, "abcdef0123")
    assert leftovers(path) == []


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Google Drive", b"\n <HTML><head>"])
def test_a_web_page_is_recognised_and_deleted(page: bytes, server: Server, path: Path) -> None:
    server.files["w"] = page
    with pytest.raises(SatbenchError, match=r"^expected weights from http.*/w, got a web page"):
        fetch(server, path)
    assert leftovers(path) == []


def test_an_error_of_the_server_is_reported_with_the_address(server: Server, path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"/none answers 404 Not Found: check the address$"):
        download(server.url("none"), path, sha256_check(""))


def test_an_unreachable_server_is_reported_with_the_place_for_the_file(
    server: Server, path: Path
) -> None:
    url = server.url("w").replace(str(server.server_address[1]), "9")
    with pytest.raises(
        SatbenchError, match=rf"Connection refused.*put the file at {path} yourself"
    ):
        download(url, path, sha256_check(""))


@pytest.mark.parametrize("url", ["ftp://host/w", "file:///etc/passwd", "w.safetensors", ""])
def test_an_unsupported_protocol_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(SatbenchError, match=r"^expected an address that begins with https://"):
        download(url, tmp_path / "w.safetensors", sha256_check(""))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SATBENCH_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/satbench"),
        ({"HOME": "/c"}, "/c/.cache/satbench"),
    ],
)
def test_the_environment_sets_the_cache_folder(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SATBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert cache_folder() == Path(expected)
