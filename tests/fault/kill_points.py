"""Kill commands at each of their file operations, and compare what the next command leaves.

    python tests/fault/kill_points.py [--sample N] [--json FILE] [COMMAND ...]

Each command that writes (writing_commands.py) is run once undisturbed.  Then it is run again and
again in a copy of the same folder, killed by SIGKILL at its first file operation, at its second,
and so on.  After each kill the same command is run to its end.  The folder must then hold what the
undisturbed run left, but for where and when it was computed.  The command must end well, or as it
ends where the undisturbed run had ended before.
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
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from writing_commands import COMMANDS, Case, expand

WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod")
CLOCK = ("environment", "images_per_second", "seconds", "finished")
UNLIKE = ("*.pt", "*.pt2", "lock")
"""Files that hold where or when they were written, of which only the names are compared."""


def run(
    words: Sequence[str],
    folder: Path,
    kill_at: int = 0,
    told: Path | None = None,
    before: Callable[[Path], None] | None = None,
) -> int:
    """Run a command in a forked process, killed at an operation; return its exit code or -9.

    `told` is a file for the number of operations and the modules that were imported.
    """
    child = os.fork()
    if child == 0:
        _command(words, folder, kill_at, told, before)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _command(
    words: Sequence[str],
    folder: Path,
    kill_at: int,
    told: Path | None,
    before: Callable[[Path], None] | None,
) -> None:
    code = 1
    try:
        code = _watched(words, folder, kill_at, told, before)
    finally:
        os._exit(code)


def _watched(
    words: Sequence[str],
    folder: Path,
    kill_at: int,
    told: Path | None,
    before: Callable[[Path], None] | None,
) -> int:
    from satbench.cli import main

    os.chdir(folder)
    if before:
        before(folder)
    done = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if _writes(event, arguments, folder):
            done += 1
            if done == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    sys.argv = ["satbench", *words]
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    if not os.environ.get("SHOW"):
        os.dup2(silence, 2)
    code = 1
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    if told is not None:
        told.write_text(json.dumps({"operations": done, "modules": list(sys.modules)}))
    return code


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
    """Return what a folder holds, without what differs from run to run."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = "folder"
        elif path.name.startswith("events.out.tfevents"):
            found[str(Path(name).parent / "events")] = "file"  # one a process
        elif path.suffix in (".json", ".jsonl"):
            texts = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
            found[name] = [_timeless(json.loads(text)) for text in texts]
        elif path.suffix == ".npz" and ".runs" in path.parts:
            with np.load(path) as arrays:
                found[name] = {one: arrays[one].tolist() for one in arrays if one not in CLOCK}
        elif path.suffix == ".safetensors":  # its header is in any order
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


def examine(name: str, sample: int, made: Path) -> dict[str, Any]:
    """Kill one command at `sample` of its operations, 0 for all; return what came of it.

    `made` is a folder for what commands start from.
    """
    case = COMMANDS[name]
    with tempfile.TemporaryDirectory() as base:
        start, told = given(case, made), Path(base).resolve() / "told"
        words, whole = expand(case.words, start), _copy(start, Path(base).resolve() / "whole")
        assert run(words, whole, told=told, before=case.before) == 0, f"{name} fails undisturbed"
        counted, expected = json.loads(told.read_text()), tree(whole)
        ends = (0, run(words, whole, before=case.before))
        _take_in(counted["modules"])
        operations = counted["operations"]
        points, faults = _spread(operations, sample), []
        for point in points:
            folder = _copy(start, Path(base).resolve() / f"at-{point}")
            if fault := _fault(case, words, folder, point, (expected, ends)):
                faults.append(f"operation {point}: {fault}")
            shutil.rmtree(folder)
    return {"command": name, "operations": operations, "kills": len(points), "faults": faults}


def _fault(
    case: Case,
    words: Sequence[str],
    folder: Path,
    point: int,
    expected: tuple[dict[str, Any], Sequence[int]],
) -> str:
    """Kill a command at one operation and run it again; return what is wrong then, or nothing.

    `expected` is what the folder should hold, and the exit codes that are well.
    """
    killed = run(words, folder, point, before=case.before)
    if killed != -signal.SIGKILL:
        return f"ended with {killed} and was not killed"
    code = run(words, folder, before=case.before)
    differs = _differing(folder, expected[0])
    return "" if code in expected[1] and not differs else f"exit code {code}, differs in {differs}"


def _differing(folder: Path, expected: Any) -> list[str]:
    try:
        there = tree(folder)
    except ValueError as error:
        return [str(error)]
    return sorted(key for key in {*expected, *there} if expected.get(key) != there.get(key))


def _spread(operations: int, sample: int) -> list[int]:
    """Return `sample` of the operations, from 1, spread over all of them; all for 0."""
    if not sample or sample >= operations:
        return list(range(1, operations + 1))
    return [1 + (2 * place + 1) * operations // (2 * sample) for place in range(sample)]


def given(case: Case, made: Path) -> Path:
    """Return a folder with what a case starts from: made once."""
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
    """Import what a command imported, once for all the processes that are forked from this one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in modules:
            with suppress(Exception):
                import_module(name)


def _copy(start: Path, folder: Path) -> Path:
    shutil.copytree(start, folder)
    return folder


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Examine the commands that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--sample", type=int, default=0, help="so many kills each; default: all")
    parser.add_argument("--json", type=Path, help="write the counts there too")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    told = []
    with tempfile.TemporaryDirectory() as made:
        for name in asked.commands or COMMANDS:
            told.append(one := examine(name, asked.sample, Path(made).resolve()))
            counts = f"{one['operations']} file operations, {one['kills']} kills"
            _say(f"{name}: {counts}, {len(one['faults'])} faults")
            for fault in one["faults"]:
                _say(f"{name}: {fault}")
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
    sys.exit(1 if any(one["faults"] for one in told) else 0)


if __name__ == "__main__":
    main()
