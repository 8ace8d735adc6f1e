"""Peak memory of `satbench.evaluate` against the number of images, in separate processes.

The models are a robust one, with few broken images, and a weak one, with witnesses for almost all
images.  The attacks are PGD, and the fast suite, whose parts continue from each other's points.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import BATCH, finish, log, parser, short
from tables import memory_table

CASES = {
    "robust, PGD": ("fmnist-sat-tiny-relu-s0", "pgd(steps=3)"),
    "weak, PGD": ("fmnist-standard-tiny-relu-s0", "pgd(steps=3)"),
    "robust, fast": ("fmnist-sat-tiny-relu-s0", "fast(source=none)"),
}
MIB = 2**20


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("--images", type=int, nargs="+", default=[250, 1000, 4000, 10000])
    made.add_argument("--rounds", type=int, default=1)
    made.add_argument("--child", nargs=3, metavar=("MODEL", "N", "ATTACK"), help="one run, here")
    options = made.parse_args(arguments)
    if options.child:
        model, n, attack = options.child
        print(json.dumps(evaluate(model, int(n), attack)))
        return
    rows = []
    for case, (model, attack) in CASES.items():
        runs = {
            n: [in_a_process(model, n, attack) for _ in range(options.rounds)]
            for n in options.images
        }
        base = runs[options.images[0]]
        rows += [summary(case, n, found, base) for n, found in runs.items()]
    print(memory_table(finish(rows, options.json, batch=BATCH)))


def in_a_process(model: str, n: int, attack: str) -> dict[str, int]:
    """Evaluate in a new process; return its own measurements."""
    command = [sys.executable, __file__, "--child", model, str(n), attack]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout)
    log(f"{model}, {n} images: peak {found['peak'] / MIB:.1f} MiB")
    return found


def evaluate(model: str, n: int, attack: str) -> dict[str, int]:
    """Evaluate the first `n` images; return bytes: the peak, the images as float32, witnesses."""
    import torch

    import satbench

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as out:
        record = satbench.evaluate(
            model,
            "fashion-mnist",
            attacks=[attack],
            n_examples=n,
            batch_size=BATCH,
            device="cpu",
            out=out,
        )
    broken = record.clean_correct - record.surviving()
    image = 28 * 28 * 4
    return {"peak": peak(), "images": n * image, "broken": broken, "witnesses": broken * image}


def peak() -> int:
    """Return this process's peak memory, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the parent's memory at the fork
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def summary(
    case: str, n: int, found: list[dict[str, int]], base: list[dict[str, int]]
) -> dict[str, Any]:
    """Return one row: medians in MiB."""

    def median(runs: list[dict[str, int]]) -> float:
        peaks = sorted(run["peak"] for run in runs)
        return peaks[len(peaks) // 2] / MIB

    return {
        "case": case,
        "images": n,
        "broken": found[0]["broken"],
        "peak_mib": round(median(found), 1),
        "growth_mib": round(median(found) - median(base), 1),
        "images_mib": short(found[0]["images"] / MIB),
        "witnesses_mib": short(found[0]["witnesses"] / MIB),
    }


if __name__ == "__main__":
    main()
