"""`make gpu`: what a machine with a GPU must show, in one command of at most eight minutes.

Each step is a process with a limit of time; a step that fails or takes too long is reported, and
the others run.  The folder --out gets `gpu.json`, the page `gpu.md`, and a log of each step.  To
publish them: copy `gpu.json` to `benchmarks/results/`, and run `python benchmarks/gpu.py --write`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from gpu_page import allowed, page

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "gpu.json"
PAGE = ROOT / "docs" / "gpu.md"
ALLOWED = ROOT / "satbench" / "engine" / "machine" / "allowed.json"

SHARES = {
    "tests": 80,
    "agreement": 120,
    "deterministic": 40,
    "ways": 90,
    "training": 60,
    "peers": 70,
}
"""The steps in order, and the seconds that each may take of eight minutes."""

LAST = 5.0  # seconds that are kept for the page
_TOLD = 12  # lines of a failed step's log that the page shows


@dataclass(frozen=True)
class Ended:
    """How a step ended: `done`, `failed`, `out of time` or `not begun`.

    `rows` are its results by table, also those from before a failure.
    """

    status: str
    seconds: float
    limit: float
    rows: dict[str, Any]
    told: str = ""


def main(arguments: list[str] | None = None) -> None:
    """Run the steps, or one of them, or write the page from committed results."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder for the results")
    made.add_argument("--minutes", type=float, default=8.0, help="limit for all steps together")
    made.add_argument("--device", default="cuda", help="cpu rehearses everything without a GPU")
    made.add_argument("--size", choices=("full", "tiny"), default="full")
    made.add_argument("--steps", nargs="+", default=list(SHARES), choices=list(SHARES))
    made.add_argument("--step", choices=list(SHARES), help=argparse.SUPPRESS)
    made.add_argument("--write", action="store_true", help="write the committed page, run nothing")
    options = made.parse_args(arguments)
    if options.write:
        write_committed()
    elif options.step:
        run_step(options.step, options.device, options.size, options.out)
    else:
        run_all(options)


def run_all(options: argparse.Namespace) -> None:
    """Run the steps one after another, and write result and page after each."""
    if options.device.startswith("cuda"):
        check_gpu()
    options.out.mkdir(parents=True, exist_ok=True)
    for old in options.out.glob("*"):
        if old.is_file():
            old.unlink()
    script = [sys.executable, str(Path(__file__)), "--out", str(options.out)]
    asked = ["--device", options.device, "--size", options.size]
    commands = {name: [*script, *asked, "--step", name] for name in options.steps}
    begun = time.monotonic()
    limits = limits_of(options.steps, 60 * options.minutes - LAST)
    facts = {"device": options.device, "size": options.size, "minutes": options.minutes}
    for steps in drive(commands, limits, options.out):
        result = {**facts, "seconds": round(time.monotonic() - begun, 1), "steps": steps}
        path = options.out / "gpu.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (options.out / "gpu.md").write_text(page(result), encoding="utf-8")
    print(page(result))
    print(f"wrote {options.out / 'gpu.json'} and {options.out / 'gpu.md'}", file=sys.stderr)
    if any(step["status"] != "done" for step in steps.values()):
        raise SystemExit(1)


def check_gpu() -> None:
    """End with one sentence if torch sees no GPU."""
    import torch

    if not torch.cuda.is_available():
        print(
            "expected a GPU that torch can use, found none: "
            "`--device cpu --size tiny` rehearses the steps on the processor",
            file=sys.stderr,
        )
        raise SystemExit(2)


def limits_of(steps: Sequence[str], seconds: float) -> dict[str, float]:
    """Divide the time among the steps as `SHARES` does."""
    whole = sum(SHARES[name] for name in steps)
    return {name: seconds * SHARES[name] / whole for name in steps}


def drive(
    commands: Mapping[str, Sequence[str]], limits: Mapping[str, float], out: Path
) -> Iterator[dict[str, dict[str, Any]]]:
    """Run each command within its limit, and yield how all steps so far ended after each.

    A step also gets the time that the steps before it did not use.
    """
    steps = {name: asdict(Ended("not begun", 0, limits[name], {})) for name in commands}
    saved = 0.0
    for name, command in commands.items():
        limit = limits[name] + saved
        ended = within(command, limit, out / f"{name}.log", rows_file(out, name))
        saved = max(0.0, limit - ended.seconds)
        steps[name] = asdict(ended)
        print(f"{name}: {ended.status}, {ended.seconds:.0f} s", file=sys.stderr, flush=True)
        yield steps


def within(command: Sequence[str], limit: float, log: Path, rows: Path) -> Ended:
    """Run a command; end it and all that it started after `limit` seconds."""
    begun = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = "done" if process.wait(limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "out of time"
        finally:
            end(process)
    seconds = round(time.monotonic() - begun, 1)
    found = json.loads(rows.read_text(encoding="utf-8")) if rows.exists() else {}
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = "" if status == "done" else "\n".join(lines[-_TOLD:])
    return Ended(status, seconds, round(limit, 1), found, told)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it started."""
    if os.name == "posix":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def rows_file(out: Path, step: str) -> Path:
    """Return the file with the rows of a step."""
    return out / f"{step}.rows.json"


def run_step(name: str, device: str, size: str, out: Path) -> None:
    """Run one step in this process; every row is on the disk at once."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    import torch
    from gpu_steps import SIZES, STEPS, Setting

    rows: dict[str, Any] = {}
    path = rows_file(out, name)

    def keep(table: str, row: Any) -> None:
        rows.setdefault(table, []).append(row)
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(rows), encoding="utf-8")
        temporary.replace(path)

    STEPS[name](Setting(torch.device(device), SIZES[size], out, keep))


def write_committed() -> None:
    """Write docs/gpu.md and allowed.json from the committed result, if there is one."""
    PAGE.write_text(committed_page(), encoding="utf-8")
    ALLOWED.write_text(committed_ways(), encoding="utf-8")


def committed_page() -> str:
    """Return docs/gpu.md."""
    return page(_committed())


def committed_ways() -> str:
    """Return the file of the ways of searching that are the default, by GPU."""
    return json.dumps(allowed(_committed()), indent=1) + "\n"


def _committed() -> dict[str, Any] | None:
    return json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else None


if __name__ == "__main__":
    main()
