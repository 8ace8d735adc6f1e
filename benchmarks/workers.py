"""Wall time of `satbench eval` of eight shipped models by one process, by two, and by two commands.

In turns: `--workers 1`, `--workers 2`, and two simultaneous commands of four models each.  Every
run is the whole command from the shell, including start-up, in an empty folder.  The records of all
runs are compared.  Run it on two idle cores.  Every finished run is saved in the file of --json at
once, and the same command continues after a stop.  Then the time of every unit of the same work is
measured in this process, for `scale.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from harness import Memory, environment, log, parser, short
from tables import workers_table

MODELS = tuple(
    f"fmnist-sat-tiny-{activation}-s0"
    for activation in ("relu", "silu", "gelu", "elu", "celu", "mish", "softplus", "smooth-relu")
)
WAYS = ("one process", "--workers 2", "two commands by hand")


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--images", type=int, default=120)
    made.add_argument("--batch-size", type=int, default=30)
    made.add_argument("--attack", default="fast(source=none)")
    options = made.parse_args(arguments)
    asked = {
        "attack": options.attack,
        "images": options.images,
        "batch_size": options.batch_size,
        "models": list(MODELS),
    }
    result = begun(options.json, asked)
    for number in range(options.rounds):
        turn = number % len(WAYS)
        for way in (*WAYS[turn:], *WAYS[:turn]):
            if len(result["seconds"][way]) > number:
                continue
            seconds, records = timed(way, asked)
            result["seconds"][way].append(short(seconds))
            result["records"] = result["records"] or records
            if records != result["records"]:
                raise SystemExit(f"the records of {way!r} differ from those of the first run")
            log(f"round {number + 1}/{options.rounds}: {way} {seconds:.1f} s")
            keep(result, options.json)
    if not result["start_up"]:
        result["start_up"] = short(starting(asked))
        result["units"] = unit_times(asked)
    result["rows"] = rows(result["seconds"])
    keep(result, options.json)
    print(workers_table(result))


def begun(to: Path | None, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the result so far: the contents of the file if it is of the same work, or nothing."""
    command = "python " + " ".join(["benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])
    fresh: dict[str, Any] = {
        "command": command,
        "environment": {**environment(), "threads": 1},
        "asked": asked,
        "seconds": {way: [] for way in WAYS},
        "records": {},
        "start_up": 0.0,
        "units": [],
        "rows": [],
    }
    if to and to.exists():
        found: dict[str, Any] = json.loads(to.read_text(encoding="utf-8"))
        if found["asked"] == asked:
            return found
    return fresh


def keep(result: dict[str, Any], to: Path | None) -> None:
    """Write the result so far."""
    if to:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def rows(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return a row per way: median and range of the wall seconds, and the speed-up by rounds."""
    base = seconds[WAYS[0]]
    return [
        {
            "way": way,
            "seconds": short(np.median(taken)),
            "range": [min(taken), max(taken)],
            "speed_up": short(np.median([b / t for b, t in zip(base, taken, strict=True)])),
        }
        for way, taken in seconds.items()
    ]


def timed(way: str, asked: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Run the work one way in an empty folder; return wall seconds and the verdicts by model."""
    with tempfile.TemporaryDirectory() as folder:
        half = len(MODELS) // 2
        parts = (MODELS[:half], MODELS[half:]) if way == WAYS[2] else (MODELS,)
        workers = 2 if way == WAYS[1] else 1
        started = time.perf_counter()
        running = [
            subprocess.Popen(
                command(part, asked, workers, folder), env=one_thread(), stdout=subprocess.DEVNULL
            )
            for part in parts
        ]
        codes = [process.wait() for process in running]
        seconds = time.perf_counter() - started
        if any(codes):
            raise SystemExit(f"{way!r} ended with {codes}")
        found = [
            json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).glob("*.json")
        ]
        return seconds, {
            one["model"]["name"]: one["identity"] + one["witnesses_digest"] for one in found
        }


def command(models: Sequence[str], asked: dict[str, Any], workers: int, out: str) -> list[str]:
    """Return the command line for some models."""
    return [
        *(sys.executable, "-m", "satbench", "eval", *models, "--attack", asked["attack"]),
        *("--n-examples", str(asked["images"]), "--batch-size", str(asked["batch_size"])),
        *("--device", "cpu", "--workers", str(workers), "--quiet", "--out", out),
    ]


def one_thread() -> dict[str, str]:
    """Return the environment of a process with one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def starting(asked: dict[str, Any]) -> float:
    """Return the wall seconds of a command with almost no attack: the cost of a start."""
    least = {**asked, "attack": "pgd(steps=1)", "images": 1}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            command(MODELS[:1], least, 1, folder),
            check=True,
            env=one_thread(),
            stdout=subprocess.DEVNULL,
        )
        return time.perf_counter() - started


def unit_times(asked: dict[str, Any]) -> list[list[float]]:
    """Return the time of each unit: (model, stage, images, seconds), in the order of the run."""
    import torch

    from satbench.attacks.suites.suite import parse_suite
    from satbench.core.threat import Threat
    from satbench.data import load_dataset
    from satbench.engine.runner import Context
    from satbench.engine.suite_run import run_suite
    from satbench.models import load_model, request_model

    torch.set_num_threads(1)
    images = load_dataset("fashion-mnist", "test", asked["images"])
    taken = []
    for number, name in enumerate(MODELS):
        request = request_model(name)
        journal = Memory()
        context = Context(images, Threat.parse(request.threat or ""), journal)
        context = replace(context, batch_size=asked["batch_size"])
        run_suite(
            load_model(request, images.classes).module, parse_suite([asked["attack"]]), context
        )
        taken += [
            [number, one.stage, len(one.indices), short(one.seconds)] for one in journal.results
        ]
    return taken


if __name__ == "__main__":
    main()
