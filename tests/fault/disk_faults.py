"""Let the disk fail at each file operation of a command, and compare the files after a rerun.

    python tests/fault/disk_faults.py [--sample N] [--json FILE] [COMMAND ...]

Each command that writes (writing_commands.py) runs once undisturbed.  Then it runs repeatedly in a
copy of the same folder, and the disk fails: one operation fails (EIO), the disk is full from one
operation on (ENOSPC), one call of fsync fails (EIO), or no file can grow beyond a size (EFBIG).
The command must end with exit code 2 and one sentence, or succeed and leave all files of the
undisturbed run.  Then the same command runs without a fault.  After that the folder must hold the
files of the undisturbed run, and nothing more.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from kill_points import (
    Disturb,
    Undisturbed,
    Wanted,
    copy,
    examine_all,
    run,
    spread,
    tree,
    undisturbed,
)

SIZES = (0, 1, 100, 1_000, 4_096, 10_000)
"""In bytes: how large files may grow; most files of the commands have less than 10,000."""

MAKES = ("open", "os.mkdir", "os.link")
"""What a full disk refuses.  It renames and removes files."""


@dataclass(frozen=True)
class Fault:
    """A fault of the disk, and its time."""

    kind: str
    at: int

    def prepare(self, before: Callable[[Path], None] | None) -> Callable[[Path], None]:
        """Return a function for the command's process to call before it begins."""

        def prepared(folder: Path) -> None:
            if before:
                before(folder)
            if self.kind == "size":
                most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.at, most))
            if self.kind == "fsync":
                os.fsync = _failing(self.at)

        return prepared

    def disturb(self) -> Disturb | None:
        """Return a function to call before each file operation."""

        def at_once(number: int, operation: str) -> None:
            if number == self.at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        def from_then_on(number: int, operation: str) -> None:
            if number >= self.at and operation in MAKES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return {"operation": at_once, "full": from_then_on}.get(self.kind)


def _failing(at: int) -> Callable[[int], None]:
    """Return an fsync that fails at one call."""
    calls, sync = 0, os.fsync

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(handle)

    return fsync


def examine(name: str, sample: int, made: Path) -> dict[str, Any]:
    """Let the disk fail in one command, `sample` times per kind of fault, 0 for all; return counts.

    Each operation fails once; the disk is full from every third operation on.
    """
    with tempfile.TemporaryDirectory() as place:
        base = Path(place).resolve()
        return disturbed(name, undisturbed(name, made, base), sample, base)


def disturbed(name: str, known: Undisturbed, sample: int, base: Path) -> dict[str, Any]:
    """Let the disk fail in a command with known results, as `examine` does."""
    many = known.operations
    sample = known.case.most // 4 if known.case.most else sample
    kinds = {
        "operation": spread(many, sample),
        "full": spread(many, sample or -(-many // 3)),
        "fsync": spread(4, sample),
        "size": SIZES[:sample] if sample else SIZES,
    }
    faults, ends = [], {0: 0, 2: 0}
    for fault in (Fault(kind, at) for kind, points in kinds.items() for at in points):
        folder = copy(known.start, base / "disturbed")
        code, wrong = _try(known, folder, fault)
        ends[code] = ends.get(code, 0) + 1
        if wrong:
            faults.append(f"{fault.kind} {fault.at}: {wrong}")
        shutil.rmtree(folder)
    tried = {kind: len(points) for kind, points in kinds.items()}
    counts = {"operations": many, "disk faults": sum(tried.values()), **tried}
    return {
        "command": name, **counts, "refused": ends[2], "ended well": ends[0], "faults": faults
    }  # fmt: skip


def _try(known: Undisturbed, folder: Path, fault: Fault) -> tuple[int, str]:
    """Run a command with a fault, then without; return how it ended, and its faults."""
    code, told = _disturbed(known, folder, fault)
    if code == 2:
        if not told or not told[-1].startswith("satbench: ") or "Traceback" in " ".join(told):
            return code, f"said {told[-3:]}"
    elif code != 0:
        return code, f"exit code {code}, said {told[-3:]}"
    elif lost := _lost(folder, known.leaves):
        return code, f"ended well without {lost}"
    return code, known.again(folder)


def _disturbed(known: Undisturbed, folder: Path, fault: Fault) -> tuple[int, list[str]]:
    """Return the exit code of a command under a fault, and the lines of its stderr."""
    reads, writes = os.pipe()  # stderr is a file that could not grow either
    before = fault.prepare(known.case.before)
    code = run(known.words, folder, fault.disturb(), Wanted(said=writes), before)
    os.close(writes)
    with os.fdopen(reads, errors="replace") as said:
        return code, said.read().splitlines()


def _lost(folder: Path, expected: dict[str, Any]) -> list[str]:
    """Return the missing files that a command should have left."""
    there = tree(folder)
    return [name for name, holds in expected.items() if there.get(name) != holds]


if __name__ == "__main__":
    examine_all(__doc__, "disk faults", examine)
