"""Kill a command at each of its file operations, and compare the files after a rerun.

    python tests/fault/kill_points.py [--sample N] [--json FILE] [COMMAND ...]

Each command that writes (writing_commands.py) runs once undisturbed.  Then it runs repeatedly in a
copy of the same folder, and SIGKILL ends it at its first file operation, at its second, and so on.
After each kill the same command runs to its end.  The folder must then hold the files of the
undisturbed run, except the place and time of computation.  The command must succeed, or end as it
does after a finished run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from writing_commands import COMMANDS, Case, expand

WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod")
Disturb = Callable[[int, str], None]
"""What is called before each file operation with its number, from 1, and its name."""

CLOCK = ("environment", "images_per_second", "seconds", "finished")
UNLIKE = ("*.pt", "*.pt2", "lock", "*.lock", "events.out.tfevents.*")
"""Files that hold where or when they were written, of which only the names are compared."""


def killed_at(point: int) -> Disturb:
    """Return a function that kills the process by SIGKILL before one operation."""

    def disturb(number: int, operation: str) -> None:
        if number == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return disturb


@dataclass(frozen=True)
class Wanted:
    """Where a command writes: a file for its numbers, an open file for its stderr."""

    told: Path | None = None
    said: int | None = None


def run(
    words: Sequence[str],
    folder: Path,
    disturb: Disturb | None = None,
    wanted: Wanted = Wanted(),
    before: Callable[[Path], None] | None = None,
) -> int:
    """Run a command in a forked process, disturbed at its operations; return its exit code.

    The code is -9 if it was killed.  `wanted.told` is a file for the number of operations and
    the modules that were imported.
    """
    child = os.fork()
    if child == 0:
        _command(words, folder, disturb, wanted, before)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _command(
    words: Sequence[str],
    folder: Path,
    disturb: Disturb | None,
    wanted: Wanted,
    before: Callable[[Path], None] | None,
) -> None:
    code = 1
    try:
        code = _watched(words, folder, disturb, wanted, before)
    finally:
        os._exit(code)


def _watched(
    words: Sequence[str],
    folder: Path,
    disturb: Disturb | None,
    wanted: Wanted,
    before: Callable[[Path], None] | None,
) -> int:
    from satbench.cli import main

    os.chdir(folder)
    _say_to(wanted.said)
    if before:
        before(folder)
    done = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if _writes(event, arguments, folder):
            done += 1
            if disturb:
                disturb(done, event)

    sys.addaudithook(watch)
    sys.argv = ["satbench", *words]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    if wanted.told is not None:
        wanted.told.write_text(json.dumps({"operations": done, "modules": list(sys.modules)}))
    return code


def _say_to(said: int | None) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    if said is not None:
        os.dup2(said, 2)
    elif not os.environ.get("SHOW"):
        os.dup2(silence, 2)


def _writes(event: str, arguments: tuple[Any, ...], folder: Path) -> bool:
    if event == "open":
        path, _, flags = arguments
        changes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return changes and isinstance(path, str | bytes) and _is_within(path, folder)
    return event in WRITES and _is_within(arguments[0], folder)


def _is_within(path: Any, folder: Path) -> bool:
    if isinstance(path, int):
        return False
    return Path(os.path.abspath(os.fsdecode(path))).is_relative_to(folder)


def tree(folder: Path) -> dict[str, Any]:
    """Return the contents of a folder, without parts that differ from run to run."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = "folder"
        elif path.suffix in (".json", ".jsonl"):
            texts = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
            found[name] = [_timeless(json.loads(text)) for text in texts]
        elif path.suffix == ".npz" and ".runs" in path.parts:
            with np.load(path) as arrays:
                found[name] = {one: arrays[one].tolist() for one in arrays if one not in CLOCK}
        elif path.suffix == ".safetensors":  # the order of its header varies
            length = int.from_bytes(path.read_bytes()[:8], "little")
            head, data = path.read_bytes()[8 : 8 + length], path.read_bytes()[8 + length :]
            found[name] = (json.loads(head), data)
        elif any(map(path.match, UNLIKE)):
            found[name] = "file"
        else:
            found[name] = path.read_bytes()
    return found


def _timeless(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _timeless(value) for key, value in values.items() if key not in CLOCK}
    return [_timeless(value) for value in values] if isinstance(values, list) else values


@dataclass(frozen=True)
class Undisturbed:
    """A command with known results: its initial files, final files, and allowed exit codes."""

    case: Case
    words: Sequence[str]
    start: Path
    operations: int
    leaves: dict[str, Any]
    ends: tuple[int, int]

    def again(self, folder: Path) -> str:
        """Run the command once more in a folder; return the faults, or nothing."""
        code = run(self.words, folder, before=self.case.before)
        differs = differing(folder, self.leaves)
        return (
            "" if code in self.ends and not differs else f"exit code {code}, differs in {differs}"
        )


def undisturbed(name: str, made: Path, base: Path) -> Undisturbed:
    """Run a command twice and return its results; `made` holds the initial files of commands."""
    case = COMMANDS[name]
    start, told = given(case, made), base / "told"
    words, whole = expand(case.words, start), copy(start, base / "whole")
    first = run(words, whole, wanted=Wanted(told), before=case.before)
    assert first == 0, f"{name} fails undisturbed"
    counted, leaves = json.loads(told.read_text()), tree(whole)
    ends = (0, run(words, whole, before=case.before))
    _take_in(counted["modules"])
    return Undisturbed(case, words, start, counted["operations"], leaves, ends)


def examine(name: str, sample: int, made: Path) -> dict[str, Any]:
    """Kill one command at `sample` of its operations, 0 for all; return the results."""
    with tempfile.TemporaryDirectory() as place:
        base = Path(place).resolve()
        return killed(name, undisturbed(name, made, base), sample, base)


def killed(name: str, known: Undisturbed, sample: int, base: Path) -> dict[str, Any]:
    """Kill a command with known results at `sample` of its operations, 0 for all."""
    points, faults = spread(known.operations, sample or known.case.most or 0), []
    for point in points:
        folder = copy(known.start, base / f"at-{point}")
        if fault := _fault(known, folder, point):
            faults.append(f"operation {point}: {fault}")
        shutil.rmtree(folder)
    counts = {"operations": known.operations, "kills": len(points)}
    return {"command": name, **counts, "faults": faults}


def _fault(known: Undisturbed, folder: Path, point: int) -> str:
    """Kill a command at one operation and run it again; return the faults, or nothing."""
    killed = run(known.words, folder, killed_at(point), before=known.case.before)
    if killed != -signal.SIGKILL:
        return f"ended with {killed} and was not killed"
    return known.again(folder)


def differing(folder: Path, expected: Any) -> list[str]:
    """Return the names of files that are extra, missing or different in a folder."""
    try:
        there = tree(folder)
    except ValueError as error:
        return [str(error)]
    return sorted(key for key in {*expected, *there} if expected.get(key) != there.get(key))


def spread(operations: int, sample: int) -> list[int]:
    """Return `sample` operations, counted from 1 and spread evenly; all for 0."""
    if not sample or sample >= operations:
        return list(range(1, operations + 1))
    return [1 + (2 * place + 1) * operations // (2 * sample) for place in range(sample)]


def given(case: Case, made: Path) -> Path:
    """Return a folder with the initial files of a case, made once."""
    folder = made / "-".join(["given", *(one.__name__ for one in case.given)])
    if not folder.exists():
        begun = folder.with_suffix(".begun")
        if case.given:
            *earlier, last = case.given
            shutil.copytree(given(Case((), tuple(earlier)), made), begun)
            last(begun, run)
        else:
            begun.mkdir()
        begun.rename(folder)
    return folder


def _take_in(modules: Sequence[str]) -> None:
    """Import the modules of a command once for all processes that are forked from this one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in modules:
            with suppress(Exception):
                import_module(name)


def copy(start: Path, folder: Path) -> Path:
    """Copy a folder; return the copy."""
    shutil.copytree(start, folder)
    return folder


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def examine_all(
    about: str | None, what: str, one_command: Callable[[str, int, Path], dict[str, Any]]
) -> None:
    """Examine the commands named on the command line; exit with 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--sample", type=int, default=0, help="so many faults each; default: all")
    parser.add_argument("--json", type=Path, help="write the counts there, beside those of others")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    bad = 0
    with tempfile.TemporaryDirectory() as made:
        for name in asked.commands or COMMANDS:
            told = one_command(name, asked.sample, Path(made).resolve())
            bad += len(told["faults"])
            say(f"{name}: {told['operations']} file operations, {told[what]} {what}")
            for fault in told["faults"]:
                say(f"{name}: {fault}")
            if asked.json:
                _write_down(asked.json, told)
    sys.exit(1 if bad else 0)


def _write_down(path: Path, told: dict[str, Any]) -> None:
    """Write the counts of a command to a file, in the order of the commands."""
    known = {one["command"]: one for one in json.loads(path.read_text())} if path.exists() else {}
    known[told["command"]] = told
    kept = [known[name] for name in COMMANDS if name in known]
    path.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    examine_all(__doc__, "kills", examine)
