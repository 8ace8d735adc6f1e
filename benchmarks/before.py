"""The comparisons with other packages, by this checkout and by an earlier one, in turns.

Each side is a separate process with its own interpreter and code.  Every round runs satbench and a
peer on both sides, in turns.  A ratio compares two calls of one round.  Rounds continue for
`--seconds`, so a short benchmark has many.  The peer's code is the same on both sides, so the
distance of its ratio from 1 shows the noise.  `--starts` starts new processes, because their memory
layout makes them slightly slower or faster.  The ratio of a start is the median of its rounds, and
the ratio shown is the median of the starts.  Above 1, this checkout is slower.

    git worktree add ../before 3a507b1
    python3 -m venv ../before/.venv && ../before/.venv/bin/pip install -e ../before
    python benchmarks/before.py ../before --json benchmarks/results/before.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from before_worker import BENCHMARKS, peer_of
from harness import Times, finish, log, parser, short
from tables import before_table

HERE = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print its table."""
    made = parser(__doc__ or "")
    made.add_argument("checkout", type=Path, help="another checkout, with its .venv")
    made.add_argument(
        "--python", type=Path, help="its interpreter, default CHECKOUT/.venv/bin/python"
    )
    made.add_argument(
        "--seconds", type=float, default=15, help="of rounds, per benchmark and start"
    )
    made.add_argument("--starts", type=int, default=3, help="number of times that both sides start")
    made.add_argument("--only", nargs="+", default=list(BENCHMARKS), choices=list(BENCHMARKS))
    options = made.parse_args(arguments)
    there = options.checkout.resolve()
    theirs = options.python or there / ".venv" / "bin" / "python"
    commits = {"before": commit(there), "now": commit(HERE)}
    times: dict[str, list[Spent]] = {name: [] for name in options.only}
    for start in range(options.starts):
        with ExitStack() as stack:
            pairs = {"before": (theirs, there), "now": (Path(sys.executable), HERE)}
            sides = {name: stack.enter_context(Side(*pair)) for name, pair in pairs.items()}
            for name in options.only:
                log(f"start {start + 1}/{options.starts}, {name}")
                times[name].append(race_sides(name, sides, options.seconds))
    rows = [row(name, starts) for name, starts in times.items()]
    rounds = min(row["rounds"] for row in rows)
    print(before_table(finish(rows, options.json, rounds=rounds, commits=commits)))


Spent = dict[tuple[str, str], list[float]]
"""CPU seconds of each round of a start, by side and contestant."""

LEAST_ROUNDS = 2


def race_sides(name: str, sides: dict[str, Side], seconds: float) -> Spent:
    """Time satbench and its peer on both sides, round after round."""
    times: Spent = {}
    number, began = 0, time.monotonic()
    while number < LEAST_ROUNDS or time.monotonic() - began < seconds:
        order = list(sides) if number % 2 else list(sides)[::-1]
        for who in ("satbench", peer_of(name)):
            for side in order:
                times.setdefault((side, who), []).append(sides[side](name, who).cpu)
        number += 1
    log(f"  {number} rounds: {np.median(ratios(times, 'satbench')):.3f}")
    return times


def row(name: str, starts: list[Spent]) -> dict[str, Any]:
    """Return the medians of a benchmark over its starts, with the lowest and highest ratio."""
    peer = peer_of(name)

    def median(of: Callable[[Spent], Any]) -> float:
        return short(np.median([np.median(of(times)) for times in starts]))

    return {
        "benchmark": name,
        "peer": peer,
        "rounds": sum(len(times["now", peer]) for times in starts),
        "before_seconds": median(lambda times: times["before", "satbench"]),
        "now_seconds": median(lambda times: times["now", "satbench"]),
        "ratio": spread([np.median(ratios(times, "satbench")) for times in starts]),
        "peer_ratio": spread([np.median(ratios(times, peer)) for times in starts]),
        "before_beside_peer": median(lambda times: beside(times, "before", peer)),
        "now_beside_peer": median(lambda times: beside(times, "now", peer)),
    }


def beside(times: Spent, side: str, peer: str) -> Any:
    """Return the peer's time divided by satbench's, for each round."""
    return np.divide(times[side, peer], times[side, "satbench"])


def ratios(times: Spent, who: str) -> list[float]:
    """Return the present time of each round divided by the earlier checkout's."""
    return [
        now / before for now, before in zip(times["now", who], times["before", who], strict=True)
    ]


def spread(values: list[Any]) -> list[float]:
    """Return the median, the lowest and the highest."""
    return [short(np.median(values)), short(min(values)), short(max(values))]


class Side:
    """A checkout that runs benchmarks in its own process."""

    def __init__(self, python: Path, checkout: Path) -> None:
        command = [str(python), "-P", str(Path(__file__).with_name("before_worker.py"))]
        self._process = subprocess.Popen(
            [*command, str(checkout)],
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def __call__(self, name: str, who: str) -> Times:
        """Run a contestant of a benchmark once."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([name, who]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{name}: {who} ended with the error above")
        return Times(*json.loads(line))


def commit(checkout: Path) -> str:
    """Return the commit of a checkout, followed by + if files differ from it."""
    describe = ["git", "-C", str(checkout), "describe", "--always", "--exclude=*", "--dirty=+"]
    return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
