"""Write docs/scale.md: workers measured, a cluster simulated, and ImageNet boards planned.

The measurements are in `benchmarks/results/workers.json`, written by `workers.py`.  The simulation
uses the unit times in that file.  The plan is arithmetic, from the passes in the board's records
and the published FLOPs of networks and rates of GPUs.  The same results give the same page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Costs, Stages, makespan
from tables import Result, table, workers_table

from satbench.records.attack_run import version_of

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "scale.md"
PASSES = HERE / "results" / "passes.json"
RECORDS = HERE.parent / "leaderboard" / "fashion-mnist-linf-0.1" / "records"

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
COPIES, IMAGES, BATCH = 8, 10_000, 250
LOCAL, NETWORK = 0.0001, 0.005  # seconds of a call of a file system, assumed
AIM = 1.8  # the speed-up of two workers
SLOW = 0.05  # the share of workers at half speed, assumed


class Network(NamedTuple):
    """A model of RobustBench's ImageNet board in Linf, and its multiply-adds at 224×224."""

    name: str
    architecture: str
    gmacs: float
    source: str
    clean: float
    robust: float


NETWORKS = (
    Network("Salman2020Do_R18", "ResNet-18", 1.81, "torchvision", 52.92, 25.32),
    Network("Salman2020Do_R50", "ResNet-50", 4.09, "torchvision", 64.02, 34.96),
    Network("Wong2020Fast", "ResNet-50", 4.09, "torchvision", 55.62, 26.24),
    Network("Engstrom2019Robustness", "ResNet-50", 4.09, "torchvision", 62.56, 29.22),
    Network("Salman2020Do_50_2", "WideResNet-50-2", 11.40, "torchvision", 68.46, 38.14),
    Network("Debenedetti2022Light_XCiT-S12", "XCiT-S12", 4.8, "arXiv:2106.09681", 72.34, 41.78),
    Network("Mo2022When_ViT-B", "ViT-B/16", 17.56, "torchvision", 68.38, 34.40),
    Network("Mo2022When_Swin-B", "Swin-B", 15.43, "torchvision", 74.66, 38.30),
    Network("Liu2023Comprehensive_ConvNeXt-B", "ConvNeXt-B", 15.36, "torchvision", 76.02, 55.82),
    Network("Liu2023Comprehensive_ConvNeXt-L", "ConvNeXt-L", 34.36, "torchvision", 78.02, 58.48),
    Network("Liu2023Comprehensive_Swin-B", "Swin-B", 15.43, "torchvision", 76.16, 56.16),
    Network("Liu2023Comprehensive_Swin-L", "Swin-L", 34.5, "arXiv:2103.14030", 78.92, 59.56),
)
IMAGENET = 5_000  # images of RobustBench's board
GPUS = {"A100": 19.5, "H100 SXM": 67.0}  # TFLOP/s in float32, NVIDIA's data sheets
UTILISATION = 0.35  # of that rate, assumed
NUMBERS = (1, 8, 256)
ENTRY = 30.0  # seconds to load a model and its images on a node, assumed


def main(arguments: list[str] | None = None) -> None:
    """Write the page, or check it."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--count", action="store_true", help="count the passes of the records again")
    made.add_argument("--check", action="store_true", help="exit 1 if the page is out of date")
    made.add_argument("--out", type=Path, default=PAGE)
    options = made.parse_args(arguments)
    if options.count:
        PASSES.write_text(json.dumps(passes(RECORDS), indent=1) + "\n", encoding="utf-8")
    text = page(HERE / "results" / "workers.json")
    if not options.check:
        options.out.write_text(text, encoding="utf-8")
    elif options.out.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{options.out} is out of date: run python benchmarks/scale.py")


def page(measured: Path) -> str:
    """Return the page; without the file of measurements, it says so."""
    result = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else None
    return (
        "\n\n".join(
            [
                "# Scaling",
                "Written by `python benchmarks/scale.py`. How to use workers and clusters: "
                "[Use several cores, or a cluster](how-to/cluster.md).",
                *(_measured(result) if result and result["rows"] else _not_yet()),
                *(_simulated(result) if result and result["units"] else []),
                *_planned(),
            ]
        )
        + "\n"
    )


def _not_yet() -> list[str]:
    return [
        "## Workers on one machine",
        "Not measured yet: `python benchmarks/workers.py --json benchmarks/results/workers.json` "
        "on two idle cores takes about seven minutes. The simulation needs its unit times.",
    ]


def _measured(result: Result) -> list[str]:
    asked, machine = result["asked"], result["environment"]
    rounds = len(result["seconds"]["one process"])
    return [
        "## Workers on one machine",
        f"Measured by `{result['command']}`: `satbench eval` of {len(asked['models'])} shipped "
        f"models on {asked['images']} images with `{asked['attack']}`, in batches of "
        f"{asked['batch_size']}, as a whole command from the shell. The median wall time of "
        f"{rounds} rounds; each round runs every way once, in rotating order. {machine['cpu']}, "
        f"{machine['cores']} cores, torch {machine['torch']}, one thread a process; load before "
        f"the first run {machine['load'][0]:.1f}. The records of all runs are the same. *By hand* "
        "is two commands at the same time, with half the models each.",
        workers_table(result),
        _against_the_aim(result),
    ]


def _against_the_aim(result: Result) -> str:
    fast = {row["way"]: row["speed_up"] for row in result["rows"]}
    if fast["--workers 2"] >= AIM:
        return f"The aim is {AIM}: `--workers 2` reaches it."
    return (
        f"The aim is {AIM}: `--workers 2` misses it. It needs two start-ups of "
        f"{result['start_up']:.1f} s, one after the other, and the processes share the last model "
        "stage by stage, so one waits at the end of a stage. Two commands by hand have no such "
        f"waits, but their halves are not equal, and they reach {fast['two commands by hand']:.2f}."
    )


def _simulated(result: Result) -> list[str]:
    base, entry = result["start_up"], result["start_up"] / 3
    own = [
        [[unit[3] for unit in units] for units in stages] for stages in by_model(result["units"])
    ]
    here = Costs(start_up=base - entry, entry=entry, conclude=entry / 2, latency=LOCAL)
    predicted = [makespan(own, count, here) for count in (1, 2)]
    work = board(result["units"])
    total = sum(sum(map(sum, stages)) for stages in work)
    cases = {
        "only units": Costs(),
        "+ start-up": Costs(start_up=base - entry, entry=entry, conclude=entry / 2),
        "+ slow workers": Costs(base - entry, entry, entry / 2, 0.0, SLOW),
        "+ local disk": Costs(base - entry, entry, entry / 2, LOCAL, SLOW),
        "+ network disk": Costs(base - entry, entry, entry / 2, NETWORK, SLOW),
    }
    alone = {name: makespan(work, 1, costs) for name, costs in cases.items()}
    rows = [
        [
            str(count),
            *(f"{alone[name] / makespan(work, count, costs):.1f}" for name, costs in cases.items()),
        ]
        for count in WORKERS
    ]
    return [
        "## A cluster, simulated",
        f"`benchmarks/cluster.py` simulates the runner with the unit times that "
        f"were recorded above: {len(work)} models (each of the eight {COPIES} times), {IMAGES:,} "
        f"images each, in batches of {BATCH}; {total / 3600:.1f} hours of units. Each column adds "
        f"one cost to the one before it: the start of a worker and of a model ({base:.1f} s as "
        f"measured, a third of it for the model), {SLOW:.0%} of the workers at half speed, and "
        f"calls of the file system, {LOCAL * 1000:g} ms each on a local disk and "
        f"{NETWORK * 1000:g} ms on a network disk. The last three numbers are assumed. Speed-up "
        "over one worker under the same costs:",
        table(["workers", *cases], rows),
        "Nothing in this table was run on a cluster. For the work of the table above, the same "
        f"simulation predicts {predicted[0]:.0f} s for one process and a speed-up of "
        f"{predicted[0] / predicted[1]:.2f} for two.",
    ]


def by_model(units: Sequence[Sequence[float]]) -> list[list[list[Sequence[float]]]]:
    """Return recorded units by model and stage, each (model, stage, images, seconds)."""
    models = 1 + int(max(unit[0] for unit in units))
    stages = 1 + int(max(unit[1] for unit in units))
    return [
        [[u for u in units if (u[0], u[1]) == (m, s)] for s in range(stages)] for m in range(models)
    ]


def board(units: Sequence[Sequence[float]]) -> list[Stages]:
    """Return the units of a larger board: more images and models, times drawn from those units."""
    rng, work = np.random.default_rng(0), list[Stages]()
    for _ in range(COPIES):
        for stages in by_model(units):
            asked = sum(unit[2] for unit in stages[0])
            work.append([_stretched(stage, asked, rng) for stage in stages])
    return sorted(work, key=lambda stages: -sum(map(sum, stages)))


def _stretched(
    units: Sequence[Sequence[float]], asked: float, rng: np.random.Generator
) -> list[float]:
    images = sum(unit[2] for unit in units)
    each = [unit[3] / unit[2] for unit in units if unit[2]]
    due = round(images / asked * IMAGES)
    sizes = [min(BATCH, due - start) for start in range(0, due, BATCH)]
    return [size * float(rng.choice(each)) for size in sizes] if each else []


def passes(records: Path) -> dict[str, dict[str, Any]]:
    """Return the passes in the records of a board.

    For AutoAttack: the passes per attacked image, by part.  For fast: the passes of a broken image
    and of a survivor, by least squares over the models; the passes of surrogates count.  Only the
    records of the newest version of fast count.
    """
    read = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(records.glob("*.json"))]
    suites = {spec for one in read for spec in one["suite"] if spec.startswith("fast(")}
    newest = max(map(version_of, suites), default=0)
    parts: dict[str, list[tuple[int, int]]] = {}
    fast = []
    for stages in (one["stages"] for one in read):
        for stage in stages:
            if stage["attack"].startswith("autoattack") and stage["attacked"]:
                spent = stage["forwards"] + stage["backwards"]
                parts.setdefault(stage["part"], []).append((stage["attacked"], spent))
        mine = [
            stage
            for stage in stages
            if stage["attack"].startswith("fast(") and version_of(stage["attack"]) == newest
        ]
        if mine and stages[0] is mine[0]:
            right = mine[0]["attacked"]
            broken = sum(stage["broken"] for stage in mine)
            kinds = ("forwards", "backwards", "source_forwards", "source_backwards")
            fast.append((broken, right - broken, sum(one[k] for one in mine for k in kinds)))
    spent = np.array(fast, float)
    found = np.linalg.lstsq(spent[:, :2], spent[:, 2], rcond=None)[0]
    return {
        "autoattack": {
            part: sum(cost for _, cost in costs) / sum(n for n, _ in costs)
            for part, costs in parts.items()
        },
        "fast": {"broken": float(found[0]), "survives": float(found[1]), "models": len(fast)},
    }


def spent_on(network: Network, suite: str, known: dict[str, dict[str, Any]]) -> list[list[float]]:
    """Return the passes of each stage of a suite on the images of one network: (images, each)."""
    right, left = network.clean / 100 * IMAGENET, network.robust / 100 * IMAGENET
    clean = [float(IMAGENET), 1.0]
    if suite == "fast":
        costs = known["fast"]
        mean = (costs["broken"] * (right - left) + costs["survives"] * left) / right
        return [clean, [right, mean]]
    costs = known["autoattack"]
    first = next(iter(costs))
    return [clean, [right, costs[first]], *([left, costs[part]] for part in costs if part != first)]


def _planned() -> list[str]:
    known = json.loads(PASSES.read_text(encoding="utf-8"))
    parts = ", ".join(f"{part} {each:,.0f}" for part, each in known["autoattack"].items())
    rows, hours = [], list[list[str]]()
    units: dict[tuple[str, str], list[Stages]] = {}
    for network in NETWORKS:
        cells = [network.name, network.architecture, f"{network.gmacs:g} ({network.source})"]
        for suite in ("autoattack", "fast"):
            stages = spent_on(network, suite, known)
            work = sum(n * each for n, each in stages)
            cells.append(f"{work / 1e6:.1f}")
            for gpu, rate in GPUS.items():
                second = 2e9 * network.gmacs / (rate * 1e12 * UTILISATION)  # of one pass
                units.setdefault((suite, gpu), []).append(
                    [_cut(n, each * second) for n, each in stages]
                )
                if gpu == "A100":
                    cells.append(f"{work * second / 3600:.1f}")
        rows.append(cells)
    for (suite, gpu), work in units.items():
        ordered = sorted(work, key=lambda stages: -sum(map(sum, stages)))
        total = sum(sum(map(sum, stages)) for stages in ordered)
        cells = [f"{suite} on {gpu}", f"{total / 3600:,.0f}"]
        for count in NUMBERS:
            taken = makespan(ordered, count, Costs(ENTRY, ENTRY, 5.0, NETWORK, SLOW))
            cells += [f"{taken / 3600:,.1f}", f"{total / count / taken:.0%}"]
        hours.append(cells)
    return [
        "## A full ImageNet board, planned",
        f"{len(NETWORKS)} models of RobustBench's board in Linf at 4/255, {IMAGENET:,} images "
        "each. **None of this was run.**",
        "- Passes per image: counted in the records of this repository's Fashion-MNIST board "
        "(`python benchmarks/scale.py --count`), whose nets are small. "
        f" AutoAttack, each attacked image: {parts}; `apgd-ce` attacks every image that is "
        "right, the later parts those that AutoAttack leaves. `fast`: "
        f"{known['fast']['broken']:.0f} for a broken image, "
        f"{known['fast']['survives']:.0f} for a survivor (least squares over "
        f"{known['fast']['models']} models). The numbers of right images and survivors are "
        "RobustBench's clean and AutoAttack accuracy.\n"
        "- FLOPs of a pass: twice the multiply-adds that the source publishes for 224×224, for a "
        "forward and also for an input gradient.\n"
        "- Rates: float32 without tensor cores from NVIDIA's data sheets, "
        f"{', '.join(f'{gpu} {rate:g} TFLOP/s' for gpu, rate in GPUS.items())}; "
        f"{UTILISATION:.0%} of that is assumed.\n"
        f"- Workers: the simulation above, units of {BATCH} images, {ENTRY:.0f} s to start and for "
        f"each model, {SLOW:.0%} of the workers at half speed, a network disk; all assumed.",
        table(
            [
                "model",
                "network",
                "G multiply-adds",
                "AutoAttack, M passes",
                "A100 hours",
                "fast, M passes",
                "A100 hours",
            ],
            rows,
        ),
        "The GPU hours of all models; then, for each number of GPUs, the hours until the last "
        "record and the share of the GPUs' time that is spent on units:",
        table(
            ["", "GPU hours", *(cell for n in NUMBERS for cell in (f"{n} GPU", "used"))],
            hours,
        ),
        "With 256 GPUs the longest model determines the end: a stage has at most "
        f"{IMAGENET // BATCH} units, and the stages follow one another. Most GPUs wait. More "
        "models, or smaller blocks (`autoattack(block=50)`, which draws other noise), use more of "
        "them.",
    ]


def _cut(images: float, each: float) -> list[float]:
    count = round(images)
    return [min(BATCH, count - start) * each for start in range(0, count, BATCH)]


if __name__ == "__main__":
    main()
