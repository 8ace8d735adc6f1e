"""Kill commands at each of their file operations, and compare what the next command leaves.

    python tests/fault/kill_points.py [--sample N] [--json FILE] [COMMAND ...]

A command that writes is run once undisturbed.  Then it is run again and again in a copy of the
same folder, killed by SIGKILL at its first file operation, at its second, and so on.  After each
kill the same command is run to its end.  The folder must then hold what the undisturbed run left,
but for where and when a record was computed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod")
CLOCK = ("environment", "images_per_second")
MODEL, OTHER = "fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0"
IMAGES = ("--n-examples", "8", "--batch-size", "4", "--quiet")

COMMANDS: dict[str, list[str]] = {
    "eval": ["eval", "--model", MODEL, "--attack", "pgd-2", *IMAGES, "--out", "out"],
    "challenge": ["challenge", "RECORD", "--attack", "square(queries=5)", "--quiet"],
    "merge": ["merge", "RECORD", "OTHER", "--out", "out"],
    "curve": [
        *("curve", "--model", MODEL, "--attack", "foolbox.fmn(steps=2)", "--at-marks", "pgd-2"),
        *(*IMAGES, "--out", "out"),
    ],
    "transfer": [
        *("transfer", "--source", OTHER, "--target", MODEL, *IMAGES, "--out", "out"),
        *("--attack", "transfer(steps=2)"),
    ],
    "export": ["export", MODEL, "--out", "out"],
    "train": [
        *("train", "--recipe", "fmnist-sat", "--data", "IMAGES", "--arch", "tiny(width=1)"),
        *("--epochs", "2", "--set", "batch_size=16", "--set", "held_out=8"),
        *("--set", "ema_decay=0.9", "--device", "cpu", "--threads", "1", "--quiet"),
        *("--name", "mine", "--out", "out"),
    ],
}


def given(folder: Path, words: Sequence[str]) -> dict[str, str]:
    """Make the files that a command starts from: by the word that stands for each, its path."""
    return {
        **(_images(folder) if "IMAGES" in words else {}),
        **(_records(folder) if {"RECORD", "OTHER"} & set(words) else {}),
    }


def _images(folder: Path) -> dict[str, str]:
    """Write forty images of three patterns under noise."""
    rng, labels = np.random.default_rng(0), np.arange(40) % 3
    x = rng.random((3, 1, 8, 8))[labels] + 0.05 * rng.standard_normal((40, 1, 8, 8))
    np.savez(folder / "images.npz", x=np.clip(x, 0, 1).astype(np.float32), y=labels)
    return {"IMAGES": "images.npz"}


def _records(folder: Path) -> dict[str, str]:
    made = folder / "given"
    for attack in ("pgd-3", "square(queries=10)"):
        words = ["eval", "--model", MODEL, "--attack", attack, *IMAGES, "--out", str(made)]
        assert run(words, folder) == 0
    record, other = sorted(made.glob("*.json"))
    return {"RECORD": str(record.relative_to(folder)), "OTHER": str(other.relative_to(folder))}


def run(words: list[str], folder: Path, kill_at: int = 0, count: Path | None = None) -> int:
    """Run a command in a forked process, killed at an operation; return its exit code or -9."""
    child = os.fork()
    if child == 0:
        _command(words, folder, kill_at, count)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _command(words: list[str], folder: Path, kill_at: int, count: Path | None) -> None:
    from satbench.cli import main

    os.chdir(folder)
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
    if count is not None:
        before = done
        count.write_text(str(before))
    os._exit(code)


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
        elif path.suffix == ".pt" or path.name == "lock":
            found[name] = "file"
        else:
            found[name] = path.read_bytes()
    return found


def _timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in CLOCK}


def examine(name: str, sample: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Kill one command at `sample` of its operations, 0 for all; return what came of it."""
    with tempfile.TemporaryDirectory() as base:
        start = Path(base).resolve() / "start"
        start.mkdir()
        names = given(start, COMMANDS[name])
        words = [names.get(word, word) for word in COMMANDS[name]]
        whole, count = _copy(start, "whole"), Path(base) / "count"
        assert run(words, whole, count=count) == 0, f"{name} fails undisturbed"
        operations, expected = int(count.read_text()), tree(whole)
        points = range(1, operations + 1)
        if sample:
            points = range(max(1, operations // (sample + 1)), operations + 1)[
                :: max(1, operations // (sample + 1))
            ][:sample]
        faults = []
        for point in points:
            folder = _copy(start, f"at-{point}")
            killed, code = run(words, folder, point), run(words, folder)
            if killed != -signal.SIGKILL:
                faults.append(f"operation {point}: ended with {killed} and was not killed")
            elif code or tree(folder) != expected:
                differs = {
                    key
                    for key in {*expected, *tree(folder)}
                    if expected.get(key) != tree(folder).get(key)
                }
                faults.append(f"operation {point}: exit code {code}, differs in {sorted(differs)}")
            shutil.rmtree(folder)
        say(f"{name}: {operations} file operations, {len(points)} kills, {len(faults)} faults")
        return {
            "command": name,
            "operations": operations,
            "kills": len(points),
            "faults": faults,
        }


def _copy(start: Path, name: str) -> Path:
    folder = start.parent / name
    shutil.copytree(start, folder)
    return folder


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Examine the commands that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("--sample", type=int, default=0, help="so many kills; default: all")
    parser.add_argument("--json", type=Path, help="write the counts there too")
    asked = parser.parse_args()
    import torch

    import satbench.attacks.packages.foolbox_package
    import satbench.curve.run
    import satbench.evaluation.run
    import satbench.figures.drawing
    import satbench.proofs.challenging
    import satbench.proofs.merging
    import satbench.training.run
    import satbench.transfer.run  # noqa: F401  (imported once, before all forks)

    torch.set_num_threads(1)
    told = [examine(name, asked.sample, _say) for name in asked.commands or COMMANDS]
    for one in told:
        for fault in one["faults"]:
            _say(f"{one['command']}: {fault}")
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
    sys.exit(1 if any(one["faults"] for one in told) else 0)


if __name__ == "__main__":
    main()
