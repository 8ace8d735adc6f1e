"""Atomic writing: files appear whole or not at all."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from satbench.core.errors import SatbenchError

_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_STALE = 3600.0  # seconds after which a file of another machine's process counts as abandoned

TRIES = 100
"""How often a folder is made again that another process removes, because a run ended."""

_FILES = re.compile(
    r"\.(csv|html|jpe?g|jsonl?|log|md|np[yz]|onnx|pdf|png|pt2?|pth|safetensors|svg|tex|tiff?|toml|tsv"
    r"|txt|webp|ya?ml|zip)",
    re.IGNORECASE,
)
"""The ends of names of files that a command reads or writes."""

_STEM_BYTES, _WORD_BYTES = 200, 60
"""The most letters of a stem, and of each of its words if the stem would be longer.

Most file systems allow 255 bytes, of which endings and the name of a temporary file need some.
"""


def open_plain(path: Path) -> io.BufferedReader:
    """Open a file to read bytes.

    Raises SatbenchError for a pipe or a device, which could wait or go on for ever, and OSError.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise SatbenchError(f"{path} is not a plain file")
    return path.open("rb")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless they exist.

    Another process may remove an empty folder above `path` at any moment.  Raises OSError.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_folder(Path(folder) / "results" / ".runs")
    ...     sorted(path.name for path in Path(folder).rglob("*"))
    ['.runs', 'results']
    """
    for _ in range(TRIES):
        # FileExistsError: the folder was removed before Python could see that it is one.
        with suppress(FileNotFoundError, FileExistsError):
            path.mkdir(parents=True, exist_ok=True)
            return
    path.mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path` that replaces it when the block ends without an error.

    After an error or an interrupt the temporary file is removed and `path` is unchanged.  Temporary
    files that killed writers of `path` left are removed too.
    """
    make_folder(path.parent)
    sweep(path)
    with _errors_of(path):
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.{_HOST}_{os.getpid()}-", suffix=".part"
        )
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Let errors of the system name `path`, which the user knows, not its temporary file."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and Path(error.filename).name.startswith(
            f".{path.name}.{_HOST}_"
        ):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, renamed to it if the block ends without an error.

    `path` must not exist.  After an error or an interrupt nothing is left.  Temporary folders that
    killed writers of `path` left are removed too.
    """
    make_folder(path.parent)
    sweep(path)
    temporary = _fresh_folder(path)
    try:
        yield temporary
        for one in temporary.rglob("*"):
            if one.is_file():
                with one.open("rb") as file:
                    os.fsync(file.fileno())
        temporary.chmod(0o777 & ~_umask())
        _sync_folder(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder at once: no part of it can be left, and `sweep` removes the remains."""
    if path.is_dir():
        gone = _fresh_folder(path)
        path.replace(gone)  # which is empty
        shutil.rmtree(gone, ignore_errors=True)


def _fresh_folder(path: Path) -> Path:
    prefix = f".{path.name}.{_HOST}_{os.getpid()}-"
    return Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix, suffix=".part"))


def copy_file(source: Path, path: Path) -> None:
    """Copy a file; `path` appears whole or not at all."""
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


def sweep(path: Path) -> None:
    """Remove the temporary files of writers of `path` that were killed.

    Files of a running process of this machine are kept, and files that a process of another machine
    may still write.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        host, _, pid = leftover.name.removeprefix(f".{path.name}.").partition("-")[0].partition("_")
        if host == _HOST and pid.isdecimal() and is_alive(int(pid)):
            continue
        with suppress(OSError):
            if host == _HOST or time.time() - leftover.stat().st_mtime > _STALE:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk; without it a crash may lose a file."""
    if os.name != "posix":
        return
    with suppress(OSError):  # the file system does not support it
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8, with line ends as they are."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a binary file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def file_stem(words: Sequence[str]) -> str:
    """Name a file after `words`, the last of which makes it unique: `a model` -> `a-model-1f3b`.

    Letters, digits and `-._` are kept; words are cut if the name would be too long for a disk.
    """
    if len("-".join(words).encode(errors="replace")) > _STEM_BYTES:
        cut = [word.encode(errors="replace")[:_WORD_BYTES] for word in words]
        words = [word.decode(errors="ignore") for word in cut]
    return "".join(c if c.isalnum() or c in "-._" else "-" for c in "-".join(words)).strip("-.")


def check_folder(folder: Path) -> None:
    """Raise SatbenchError unless files can be written to `folder`, which need not exist yet."""
    there, fault = _first_there(folder)
    if not fault and there != folder and has_file_name(folder):
        fault = "it is the name of a file"
    elif not fault and not there.is_dir():
        fault = f"{_shown(there)} is a file"
    elif not fault and not os.access(there, os.W_OK | os.X_OK):
        fault = f"{_shown(there)} may not be written to"
    if fault:
        raise SatbenchError(f"expected a folder to write to, got {_shown(folder)}: {fault}")


def has_file_name(folder: Path) -> bool:
    """Whether the name ends as the name of a file does, such as `figure.png`."""
    return bool(_FILES.fullmatch(folder.suffix))


def _first_there(folder: Path) -> tuple[Path, str]:
    """Return the folder, or the nearest existing one above it; or what is wrong with the path."""
    for path in (folder, *folder.absolute().parents):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # a name that is too long, a folder that may not be read
            return path, str(error.strerror).lower()
        except ValueError as error:  # a character that is not allowed in names
            return path, str(error)
        return path, ""
    return folder, "nothing above it exists"


def _shown(path: Path) -> str:
    text = str(path)
    return repr(text if len(text) <= 80 else f"{text[:79]}…")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
