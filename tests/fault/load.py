"""Loads on satbench: many evaluations, many images, many classes, many records.

    python tests/fault/load.py [--json FILE] [evaluations] [classes] [mapped] [records]

Each load runs in this process.  The results are CPU seconds and MB of resident memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))


def evaluations(times: int = 100) -> dict[str, float]:
    """Evaluate a small network repeatedly; measure the memory that grows after the first ten."""
    import satbench

    x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 3
    temporary = Path(tempfile.gettempdir())

    def once(seed: int) -> None:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        satbench.evaluate(model, x, y, attacks=["pgd-3", "square(queries=10)"], eps=0.1, out=None)

    for seed in range(10):
        once(seed)
    gc.collect()
    before = (_megabytes(), _handles(), threading.active_count(), _temporary(temporary))
    for seed in range(10, 10 + times):
        once(seed)
    gc.collect()
    after = (_megabytes(), _handles(), threading.active_count(), _temporary(temporary))
    names = ("megabytes", "handles", "threads", "temporary_files")
    return {"times": times} | {
        f"{name}_more": late - early for name, early, late in zip(names, before, after, strict=True)
    }


def classes(images: int = 10_000, count: int = 1_000) -> dict[str, float]:
    """Evaluate a linear model of 1,000 classes on 10,000 images."""
    import satbench

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, count))
    x = torch.rand(images, 1, 8, 8)
    y = model(x).argmax(1).detach()
    started = time.process_time()
    record = satbench.evaluate(model, x, y, attacks="pgd-3", eps=0.05, out=None)
    return {
        "images": images,
        "classes": count,
        "seconds": time.process_time() - started,
        "megabytes": _megabytes(),
        "surviving": record.surviving(),
    }


def mapped(megabytes: int = 1_000, allowed: int = 400) -> dict[str, float]:
    """Evaluate on every image of a mapped file that is larger than the available memory.

    The system allows this process `allowed` MB more than it has.
    """
    from satbench.data import load_dataset

    with tempfile.TemporaryDirectory() as folder:
        n = megabytes * 1_000_000 // (3 * 64 * 64)
        images = np.lib.format.open_memmap(Path(folder) / "x.npy", "w+", np.uint8, (n, 3, 64, 64))
        for start in range(0, n, 1_000):
            images[start : start + 1_000] = start // 1_000 % 200
        images.flush()
        del images
        np.save(Path(folder) / "y.npy", np.arange(n) // 1_000 % 200 // 100)
        data = load_dataset(f"arrays:{folder}/x.npy,{folder}/y.npy", "test")
        before, peak = _megabytes(), _Peak()

        class Mean(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(()))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                score = self.scale * (x.flatten(1).mean(1) - 99.5 / 255)
                return torch.stack([-score, score], 1)

        started = time.process_time()
        with peak, _at_most(allowed):
            record = _evaluate(Mean(), data, Path(folder))
        return {
            "images": n,
            "file_megabytes": megabytes,
            "allowed_megabytes_more": allowed,
            "anonymous_megabytes_more": peak.most - before,
            "seconds": time.process_time() - started,
            "surviving": record.surviving(),
        }


def _evaluate(model: nn.Module, data: Any, out: Path) -> Any:
    from satbench.core.threat import Threat
    from satbench.evaluation.plan import Evaluation
    from satbench.evaluation.run import run_evaluation
    from satbench.models import describe_module

    evaluation = Evaluation(data, Threat.parse("linf:0.001"), ["pgd(steps=1)"])
    info = describe_module(model, "mean", "python")
    return run_evaluation(model, info, evaluation, torch.device("cpu"), out / "out").record


def records(count: int = 2_000) -> dict[str, float]:
    """Build a board of 2,000 records with its pages."""
    import random

    from synthetic_records import a_record

    from satbench.board.board import build_board
    from satbench.board.exports import render_csv, render_json
    from satbench.board.tables import render_markdown

    draw = random.Random(0)
    made = [
        a_record([draw.choice([-1, -1, -1, 1, 0]) for _ in range(500)], name=f"m{number}")
        for number in range(count)
    ]
    started = time.process_time()
    board = build_board(made)
    page = render_markdown(board) + render_csv(board) + render_json(board)
    return {
        "records": count,
        "seconds": time.process_time() - started,
        "page_megabytes": len(page.encode()) / 1e6,
    }


@contextmanager
def _at_most(megabytes: int) -> Iterator[None]:
    """Limit the additional memory of this process to some MB; mapped files do not count."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    has = int(_of_this_process("VmData") * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (has + megabytes * 10**6, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


class _Peak:
    """The largest anonymous memory (memory without a file) while a block runs, in MB."""

    def __init__(self) -> None:
        self.most, self._over = 0.0, threading.Event()

    def __enter__(self) -> _Peak:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.most = max(self.most, _megabytes())


def _megabytes() -> float:
    """Return the anonymous resident memory of this process."""
    return _of_this_process("RssAnon")


def _of_this_process(what: str) -> float:
    """Return a size of this process in MiB, as the system reports it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def _temporary(folder: Path) -> int:
    return len(list(folder.glob("satbench-*")))


LOADS: dict[str, Callable[[], dict[str, float]]] = {
    "evaluations": evaluations,
    "classes": classes,
    "mapped": mapped,
    "records": records,
}


def main() -> None:
    """Run the requested loads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loads", nargs="*", metavar="LOAD", help=", ".join(LOADS))
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    told = json.loads(asked.json.read_text()) if asked.json and asked.json.exists() else {}
    for name in asked.loads or LOADS:
        told[name] = {key: round(value, 1) for key, value in LOADS[name]().items()}
        sys.stdout.write(f"{name}: {told[name]}\n")
        sys.stdout.flush()
        if asked.json:
            kept = {name: told[name] for name in LOADS if name in told}
            asked.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
