"""One side of `before.py`: a process that runs the benchmarks of one checkout on request.

    python -P before_worker.py CHECKOUT

It reads a line of JSON, `[benchmark, contestant]`, from stdin, runs it once by the code in
CHECKOUT/benchmarks, and writes its seconds, `[cpu, wall]`, to stdout.  At the first request, the
benchmark is set up and run once untimed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

Run = Callable[[], object]


def main() -> None:
    """Serve until stdin ends."""
    checkout = sys.argv[1]
    sys.path[:0] = [f"{checkout}/benchmarks", checkout]
    answers, sys.stdout = sys.stdout, sys.stderr  # peers print
    import torch

    torch.set_num_threads(1)
    measure = import_module("harness").measure
    made: dict[str, dict[str, Run]] = {}
    for line in sys.stdin:
        name, who = json.loads(line)
        if name not in made:
            made.clear()
            made[name] = BENCHMARKS[name]()
            for run in made[name].values():
                run()
        times = measure(made[name][who])
        answers.write(json.dumps([times.cpu, times.wall]) + "\n")
        answers.flush()


def pgd(case: str, images: int, steps: int) -> Callable[[], dict[str, Run]]:
    """PGD compared with Foolbox's."""

    def make() -> dict[str, Run]:
        foolbox = import_module("contestants").CONTESTANTS["foolbox"]
        found, data = case_and_images(case, images)
        ours, theirs = found.make(), found.make()
        suite = parse_suite([f"pgd(steps={steps},start=clean)"])
        return {
            "satbench": lambda: run_engine(ours, data, found.threat, suite),
            "foolbox": lambda: foolbox(theirs, data, found.threat, steps),
        }

    return make


def part(name: str, case: str, images: int) -> Callable[[], dict[str, Run]]:
    """A part of AutoAttack compared with the package's."""

    def make() -> dict[str, Run]:
        module = import_module("autoattack")
        found, data = case_and_images(case, images)
        ours, theirs = found.make(), found.make()
        suite = parse_suite([name])
        return {
            "satbench": lambda: run_engine(ours, data, found.threat, suite),
            "pyautoattack": lambda: module.theirs(theirs, found, data, name),
        }

    return make


def parse_suite(specs: list[str]) -> Any:
    """Return the stages of attacks, by the checkout's own code."""
    return import_module("satbench.attacks.suites.suite").parse_suite(specs)


def run_engine(model: Any, images: Any, threat: Any, suite: Any) -> object:
    """Run the checkout's inner engine, which both sides have; what is beside it may differ."""
    return import_module("harness").run_engine(model, images, threat, suite)


def training(net: str, batches: int, activation: str) -> Callable[[], dict[str, Run]]:
    """An epoch of adversarial training compared with a plain loop."""

    def make() -> dict[str, Run]:
        module, trainers = import_module("train"), import_module("trainers").TRAINERS
        config, data = getattr(module, net)(batches, activation)
        return {name: trainers[name](config, data) for name in ("satbench", "MAIR-style")}

    return make


def case_and_images(name: str, images: int) -> tuple[Any, Any]:
    """Return a case of the checkout's benchmarks, and images that its model gets right."""
    cases = {case.name: case for case in import_module("cases").CASES}
    return cases[name], cases[name].correct(images)


BENCHMARKS: dict[str, Callable[[], dict[str, Run]]] = {
    "PGD-20, small net, robust": pgd("small-robust", 100, 20),
    "PGD-50, small net, robust": pgd("small-robust", 100, 50),
    "PGD-20, small net, weak": pgd("small-weak", 100, 20),
    "PGD-20, large net, robust": pgd("large-robust", 10, 20),
    "PGD-20, large net, weak": pgd("large-weak", 10, 20),
    "apgd-ce, robust": part("apgd-ce", "small-robust", 32),
    "apgd-t, robust": part("apgd-t", "small-robust", 32),
    "fab-t, robust": part("fab-t", "small-robust", 32),
    "square, robust": part("square", "small-robust", 32),
    "apgd-ce, weak": part("apgd-ce", "small-weak", 32),
    "fab-t, weak": part("fab-t", "small-weak", 32),
    "square, weak": part("square", "small-weak", 32),
    "training, small net, relu": training("small", 40, "relu"),
    "training, small net, parametric-softplus": training("small", 40, "parametric-softplus"),
    "training, large net, relu": training("large", 2, "relu"),
}

PEERS = {"PGD": "foolbox", "training": "MAIR-style"}


def peer_of(name: str) -> str:
    """Return the peer of a benchmark."""
    return PEERS.get(name.partition("-")[0].partition(",")[0], "pyautoattack")


if __name__ == "__main__":
    main()
