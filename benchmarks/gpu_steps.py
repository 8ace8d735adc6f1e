"""The steps of `gpu.py`.  Each passes its rows to `keep` as soon as it has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import contestants
import numpy as np
import torch
from cases import CASES
from harness import environment, race, versions
from torch import nn

import satbench
from satbench.calling.devices import device_name
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.engine.machine.ways import VARIABLE
from satbench.models import load_model, request_model

ROOT = Path(__file__).parents[1]

SHIPPED = (
    "fmnist-sat-tiny-relu-s0",
    "fmnist-pgd2-tiny-silu-s0",
    "fmnist-sat-small-parametric-softplus-s0",
)
RESNET = "ResNet-18 of pyautoattack"

WAYS = (
    "float32",
    "float32+plain",
    "float32+channels-first",
    "float32+channels-last",
    "float32+graph",
    "tf32",
    "bfloat16",
    "float16",
    "bfloat16+graph",
)
"""The ways of searching that are compared with the first."""


@dataclass(frozen=True)
class Size:
    """How much is done: images of Fashion-MNIST and CIFAR-10, attacks, training images, …"""

    nets: int
    images: int
    pictures: int
    attacks: tuple[str, ...]
    quick: tuple[str, ...]
    training: int
    rounds: int
    steps: int
    parts: tuple[str, ...]


SIZES = {
    "full": Size(
        3,
        250,
        20,
        ("pgd-20", "fast(source=none)"),
        ("pgd-20", "apgd-ce(steps=30)"),
        4000,
        3,
        20,
        ("apgd-ce", "apgd-t"),
    ),
    "tiny": Size(1, 12, 2, ("pgd-2",), ("pgd-2",), 300, 1, 2, ("apgd-ce",)),
}


@dataclass(frozen=True)
class Setting:
    """The device, the size and the folder of a step; `keep` gets a table's name and a row."""

    device: torch.device
    size: Size
    folder: Path
    keep: Callable[[str, Any], None]


@dataclass(frozen=True)
class Net:
    """A net with its images and the radius of the adversary in Linf."""

    name: str
    make: Callable[[], nn.Module]
    images: Dataset
    eps: str


@dataclass(frozen=True)
class Outcome:
    """The verdicts of an evaluation, what was searched, and the wall time."""

    verdicts: list[int]
    witnesses: str
    searched: list[str]
    seconds: float

    @property
    def survive(self) -> list[bool]:
        """Which images survive."""
        return [verdict == -1 for verdict in self.verdicts]


def nets(size: Size) -> Iterator[Net]:
    """Yield the shipped nets and the ResNet-18."""
    fashion = load_dataset("fashion-mnist", "test", size.images)
    for name in SHIPPED[: size.nets]:
        yield Net(name, lambda n=name: load_model(request_model(n), 10).module, fashion, "0.1")
    case = next(case for case in CASES if case.name == "large-robust")
    yield Net(RESNET, case.make, case.images().first(size.pictures), str(case.threat.eps))


def evaluated(
    net: Net, device: torch.device, attacks: Sequence[str], way: str = "float32"
) -> Outcome:
    """Evaluate a net on a device, as a user does."""
    model = net.make().eval().to(device)
    x, y = contestants.tensors(net.images)
    with tempfile.TemporaryDirectory() as folder, variable(VARIABLE, way):
        begun = time.perf_counter()
        record = satbench.evaluate(
            model, x, y, attacks=list(attacks), eps=net.eps, out=folder, progress=False
        )
        seconds = time.perf_counter() - begun
    searched = [stage.search for stage in record.stages if stage.search]
    return Outcome(record.verdicts, record.witnesses_digest, searched, seconds)


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment within the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def run_tests(setting: Setting) -> None:
    """Run the tests that need a GPU; without one they are only collected."""
    told = {
        **environment(),
        "gpu": device_name(setting.device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        **versions(("torchattacks", "pyautoattack")),
    }
    setting.keep("machine", told)
    xml_file = setting.folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    if setting.device.type == "cuda":
        command += [f"--junitxml={xml_file}"]
        done = subprocess.run(command, cwd=ROOT, check=False)
        for suite in xml.etree.ElementTree.parse(xml_file).iter("testsuite"):
            counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors")}
            counts["skipped"] = int(suite.get("skipped", 0))
            failed = [
                f"{case.get('classname')}::{case.get('name')}"
                for case in suite.iter("testcase")
                if case.find("failure") is not None or case.find("error") is not None
            ]
            setting.keep("tests", {**counts, "failed": failed})
        raise SystemExit(done.returncode)
    done = subprocess.run(
        [*command, "--collect-only"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    collected = sum("::" in line for line in done.stdout.splitlines())
    setting.keep("tests", {"collected": collected})


def compare_devices(setting: Setting) -> None:
    """Evaluate each net on the processor and on the device, image by image."""
    for net in nets(setting.size):
        attacks = setting.size.quick if net.name == RESNET else setting.size.attacks
        evaluated(some(net, 8), setting.device, setting.size.quick)  # starts the device
        ours = evaluated(net, setting.device, attacks)
        cpu = evaluated(net, torch.device("cpu"), attacks)
        setting.keep(
            "agreement",
            {
                "net": net.name,
                "attacks": list(attacks),
                "images": len(net.images),
                "cpu_survive": sum(cpu.survive),
                "device_survive": sum(ours.survive),
                **differences(cpu, ours),
                "cpu_seconds": cpu.seconds,
                "device_seconds": ours.seconds,
            },
        )


def differences(one: Outcome, other: Outcome) -> dict[str, Any]:
    """Return on which images two outcomes differ: which survive only one, or fell elsewhere."""
    pairs = list(enumerate(zip(one.survive, other.survive, strict=True)))
    both = zip(one.verdicts, other.verdicts, strict=True)
    return {
        "weaker": [place for place, (first, second) in pairs if second and not first],
        "stronger": [place for place, (first, second) in pairs if first and not second],
        "other_stage": sum(a != b and -1 not in (a, b) for a, b in both),
    }


def some(net: Net, n: int) -> Net:
    """Return a net with its first images."""
    return Net(net.name, net.make, net.images.first(min(n, len(net.images))), net.eps)


def run_deterministic(setting: Setting) -> None:
    """Evaluate twice, with torch's deterministic algorithms and without."""
    found = list(nets(setting.size))
    for net in (found[0], found[-1]):
        evaluated(some(net, 8), setting.device, setting.size.quick)
        for mode in (False, True):
            torch.use_deterministic_algorithms(mode)
            row: dict[str, Any] = {"net": net.name, "deterministic": mode}
            try:
                runs = [evaluated(net, setting.device, setting.size.quick) for _ in range(2)]
                row["same_verdicts"] = runs[0].verdicts == runs[1].verdicts
                row["same_witnesses"] = runs[0].witnesses == runs[1].witnesses
                row["seconds"] = min(run.seconds for run in runs)
            except (RuntimeError, SatbenchError) as error:  # an operator without such an algorithm
                row["error"] = f"{type(error).__name__}: {error}"
            finally:
                torch.use_deterministic_algorithms(False)
            setting.keep("deterministic", row)


def compare_ways(setting: Setting) -> None:
    """Evaluate each net in each way of searching, and compare it with float32 image by image."""
    for net in nets(setting.size):
        evaluated(some(net, 8), setting.device, setting.size.quick)
        base: Outcome | None = None
        for way in WAYS:
            row: dict[str, Any] = {"net": net.name, "way": way, "images": len(net.images)}
            try:
                found = evaluated(net, setting.device, setting.size.quick, way)
                base = base or found
                row |= {
                    "survive": sum(found.survive),
                    **differences(base, found),
                    "searched": sorted(set(found.searched)),
                    "seconds": found.seconds,
                    "ratio": base.seconds / found.seconds,
                }
            except (RuntimeError, SatbenchError) as error:
                row["error"] = f"{type(error).__name__}: {error}"
            setting.keep("ways", row)
        if base is None:
            raise SystemExit(f"{net.name}: no evaluation in float32 to compare with")


def train_twins(setting: Setting) -> None:
    """Train a net for two epochs on the device and on the processor, and compare them."""
    images = load_dataset("fashion-mnist", "test", setting.size.training)
    data = setting.folder / "training.npz"
    np.savez(data, x=images.images, y=images.labels)
    runs = {}
    for name, device in (("device", str(setting.device)), ("cpu", "cpu")):
        begun = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "satbench", "train", "--recipe", "fmnist-pgd2"),
                *("--data", str(data), "--classes", "10", "--epochs", "2", "--device", device),
                *("--set", f"held_out={setting.size.training // 4}", "--name", name, "--quiet"),
                *("--out", str(setting.folder / "runs")),
            ],
            check=True,
        )
        runs[name] = setting.folder / "runs" / name
        lines = (runs[name] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        setting.keep(
            "training",
            {
                "run": name,
                "seconds": time.perf_counter() - begun,
                "epochs": [json.loads(line) for line in lines],
            },
        )
    weights = [last_weights(folder) for folder in runs.values()]
    setting.keep("weights", {"distance": distance(*weights)})


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the last epoch of a run."""
    from safetensors.torch import load_file

    last = folder / f"{folder.name}-last.safetensors"  # there if another epoch is kept
    return load_file(last if last.exists() else folder / f"{folder.name}.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the length of the difference of weights, relative to their length."""
    floats = [key for key, value in one.items() if value.is_floating_point()]
    off = sum(float((one[key] - other[key]).double().square().sum()) for key in floats)
    return (off / sum(float(one[key].double().square().sum()) for key in floats)) ** 0.5


def race_peers(setting: Setting) -> None:
    """Time satbench beside torchattacks and pyautoattack, on what runs on the device."""
    contestants.PLACE = setting.device
    found = list(nets(setting.size))
    for net in (found[0], found[-1]):
        threat, model = Threat.of("linf", net.eps), net.make().eval().to(setting.device)
        for title, runs in (
            (f"PGD-{setting.size.steps}", pgd_runs(net, threat, setting.size.steps)),
            *((part, part_runs(net, threat, part)) for part in setting.size.parts),
        ):
            survive = {name: run(model).cpu() for name, run in runs.items()}  # warms up
            calls = {name: lambda r=run, m=model: r(m).cpu() for name, run in runs.items()}
            times = race(calls, setting.size.rounds)
            ours = next(iter(runs))
            for name in runs:
                ratios = [a.wall / b.wall for a, b in zip(times[name], times[ours], strict=True)]
                setting.keep(
                    "peers",
                    {
                        "net": net.name,
                        "attack": title,
                        "images": len(net.images),
                        "contestant": name,
                        "wall_seconds": float(np.median([one.wall for one in times[name]])),
                        "ratio": float(np.median(ratios)),
                        "survive": int(survive[name].sum()),
                        "differ": int((survive[name] != survive[ours]).sum()),
                    },
                )


Run = Callable[[nn.Module], torch.Tensor]


def pgd_runs(net: Net, threat: Threat, steps: int) -> dict[str, Run]:
    """Return PGD by satbench and others; torchattacks only if it is installed."""
    names = [contestants.BASE, "satbench.attack", contestants.LOOP, "torchattacks"]
    known = [name for name in names if name != "torchattacks" or find_spec(name)]
    return {
        name: lambda model, n=name: contestants.CONTESTANTS[n](model, net.images, threat, steps)
        for name in known
    }


def part_runs(net: Net, threat: Threat, part: str) -> dict[str, Run]:
    """Return a part of AutoAttack by satbench and by the package."""
    from autoattack import ours, theirs
    from cases import Case

    case = Case("", "", threat, net.make, lambda: net.images, ())
    return {
        "satbench.evaluate": lambda model: ours(model, case, net.images, part),
        "pyautoattack": lambda model: theirs(model, case, net.images, part),
    }


STEPS: dict[str, Callable[[Setting], None]] = {
    "tests": run_tests,
    "agreement": compare_devices,
    "deterministic": run_deterministic,
    "ways": compare_ways,
    "training": train_twins,
    "peers": race_peers,
}
