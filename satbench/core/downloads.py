"""Downloads of weights: resumed after a stop, checked, and never left incomplete."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from satbench.core.digests import digest_file
from satbench.core.errors import SatbenchError
from satbench.core.lock import lock_or_refuse

TRIES = 5
"""How often in a row a server may end a transfer without sending a byte."""

TIMEOUT = 60.0
"""Seconds without a byte after which a connection is considered lost."""

Check = Callable[[Path], None]

_HTML = re.compile(rb"^\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head)\b", re.IGNORECASE | re.S)


def cache_folder() -> Path:
    """Return the folder for downloads, which need not exist.

    It is `$SATBENCH_CACHE`, else `satbench` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    if os.environ.get("SATBENCH_CACHE"):
        return Path(os.environ["SATBENCH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "satbench"


def download(url: str, path: Path, check: Check) -> Path:
    """Fetch `url` to `path` unless it is there, and return `path`.

    An interrupted transfer is kept next to `path` (`.part`) and continues from there, now or the
    next time.  `check` raises SatbenchError for a wrong file; a resumed file that fails it is
    downloaded once more from the start.  Raises SatbenchError for another protocol than http(s), a
    server that cannot be reached or refuses, and a web page.
    """
    if path.is_file():
        return path
    if not url.startswith(("https://", "http://")):
        raise SatbenchError(f"expected an address that begins with https://, got {url!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending is kept, because it says how the file is read.
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    lock = part.with_name(f".{part.name}.lock")
    with lock_or_refuse(lock, f"fetches {url} to {path}", wait=True):
        if path.is_file():  # another process has downloaded it
            return path
        resumed = _fetch(url, part)
        try:
            _refuse_web_page(url, part)
            check(part)
        except SatbenchError:
            part.unlink()
            if not resumed:
                raise
            # Perhaps the file has changed on the server since its first part was downloaded.
            _fetch(url, part)
            _checked_anew(url, part, check)
        part.replace(path)
    return path


def sha256_check(prefix: str) -> Check:
    """Return a check that a file's SHA-256 begins with `prefix`."""

    def check(path: Path) -> None:
        digest = digest_file(path)
        if not digest.startswith(prefix):
            raise SatbenchError(
                f"expected a file whose SHA-256 begins with {prefix}, got {digest[:12]}… in {path}"
            )

    return check


def is_web_page(start: bytes) -> bool:
    """Return whether a file that begins with `start` is HTML."""
    return _HTML.match(start) is not None


def _checked_anew(url: str, part: Path, check: Check) -> None:
    try:
        _refuse_web_page(url, part)
        check(part)
    except SatbenchError:
        part.unlink()
        raise


def _refuse_web_page(url: str, part: Path) -> None:
    with part.open("rb") as file:
        if is_web_page(file.read(2048)):
            raise SatbenchError(
                f"expected weights from {url}, got a web page, such as a login or a warning before "
                "a large download: fetch the file in a browser and put it next to its card"
            )


def _fetch(url: str, part: Path) -> bool:
    """Download the rest of `part`; -> whether a part of it existed before."""
    resumed = part.exists() and part.stat().st_size > 0
    idle = most = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        most = max(most, before)
        try:
            if _transfer(url, part, before):
                return resumed
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                part.unlink()  # longer than the file on the server: another file
                continue
            raise SatbenchError(
                f"{url} answers {error.code} {error.reason}: check the address"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        after = part.stat().st_size if part.exists() else 0
        idle = 0 if after > most else idle + 1  # a server without ranges starts again each time
        if idle >= TRIES:
            raise SatbenchError(
                f"{url} cannot be fetched ({reason}); the same command continues where it stopped, "
                f"or put the file at {part.with_name(part.name.replace('.part', ''))} yourself"
            )


def _transfer(url: str, part: Path, start: int) -> bool:
    """Append what follows the first `start` bytes; -> whether the file is whole now."""
    headers = {"User-Agent": "satbench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (http or https, see above)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
        begins = f"bytes {start}-"
        goes_on = answer.status == http.client.PARTIAL_CONTENT and (
            answer.headers.get("Content-Range", "").startswith(begins)
        )
        length = answer.headers.get("Content-Length")
        wanted = None if length is None else int(length) + (start if goes_on else 0)
        with part.open("ab" if goes_on else "wb") as file:
            while block := answer.read(1 << 18):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    return wanted is None or part.stat().st_size == wanted
