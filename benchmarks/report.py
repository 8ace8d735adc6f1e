"""Write docs/benchmarks.md from the results: the same results, the same bytes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from tables import (
    Result,
    accumulate_table,
    autoattack_table,
    before_table,
    memory_table,
    noise_table,
    peak_table,
    pgd_table,
    train_table,
    warm_table,
)

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


class Section(NamedTuple):
    """A section of the page about one benchmark; `files` is the pattern of its results."""

    title: str
    files: str
    text: str
    table: Callable[[Result], str]


INTRODUCTION = """# Benchmarks

Written by `python benchmarks/report.py` from `benchmarks/results/`; how to run them is in
[`benchmarks/README.md`](../benchmarks/README.md).

The main number is the **CPU ratio**: the CPU time of a contestant's process divided by satbench's.
It is the median over the rounds of one run. In each round, every contestant is called once, in
rotating order. Above 1, satbench is faster. The machine was busy with other work. Process CPU time
does not include that work (except for shared caches), and wall time does. All run on one thread.
"""

SECTIONS = (
    Section(
        "PGD compared with other packages",
        "pgd*.json",
        "`satbench.evaluate` and `satbench.attack` are called as a user calls them. All their "
        "costs count: the preflight, the clean pass, the fast copy and its check, the "
        "diagnosis, the judge, and for `evaluate` the record and its files. The early-stopping"
        " loop is the shortest code that does the same attack. Every contestant runs the same "
        "attack from the clean image, in steps of eps/4. All images are right when clean, so "
        "satbench gains nothing by skipping wrong ones. `F / image` and `B / image` are "
        "forwards and backwards. The same judge counts `survive` for all. `differ` counts the "
        "images whose verdict differs from satbench's. The large network is pyautoattack's "
        "ResNet-18, which is not robust at any useful radius. At 0.25/255 (1/1020) most of its"
        " images survive. So we use it there in place of a robust model. *lite0* is "
        "EfficientNet-Lite0 with its ImageNet weights, on photographs of 224×224. An "
        "evaluation has a fixed cost of some 30 to 100 milliseconds, which few images of a "
        "small net do not earn back. The preflight, the check of the copy and the diagnosis "
        "also ask the model about some images again, at least two. With 2 or 4 images of a "
        "large net that is a large share of all passes, and satbench is slower than a loop "
        "without these checks; with 20 images it is a small share. `F / image` and `B / image`"
        " count these passes. *resnet50* and *wide* (WRN-28-10) have random weights and are "
        "their own judges of what is right.",
        pgd_table,
    ),
    Section(
        "AutoAttack's parts compared with pyautoattack",
        "autoattack*.json",
        "Each part runs separately on the same images with the same seeds, by `satbench.evaluate`. "
        "The package attacks the original model, and the same judge counts.",
        autoattack_table,
    ),
    Section(
        "Adversarial training compared with plain loops",
        "train*.json",
        "An epoch of single-step adversarial training (PGD-1, batch-norm in eval mode for the "
        "attack), including the time to read the images. The contestants are satbench's steps; the "
        "usual loop with torchattacks' PGD (with images through PIL and `ToTensor`, as torchvision "
        "returns them, or with all images in one tensor); a loop in the style of MAIR's trainers; "
        "and one in the style of the code of Wong et al. (2020), whose attack also computes the "
        "gradients of the weights. Each is a separate process. All start from the same weights; "
        "`first loss` is the mean over the first epoch, which must be similar.\n\n"
        "satbench freezes the weights during the attack, keeps images as bytes on the device and "
        "networks channels-last, and warms up smooth activations (see the section on a warm "
        "process). The share of the peak counts the necessary passes: a forward and an input "
        "gradient, then a forward and a gradient of the weights. The large network is ResNet-18 on "
        "noise of CIFAR's shape, because only the shape matters. Its learning rate is low, so that "
        "two batches of noise hardly change the losses.\n\n"
        "In float32, satbench is clearly faster on the small network than the loops that read "
        "their images through PIL. With a smooth activation of exponentials or logarithms, here "
        "parametric softplus, it is faster than every loop on both networks. With ReLU, and with "
        "SILU, which gains nothing from a warm process inside a network, it is not faster on the "
        "large network: loops whose attack computes only the image's gradient (torchattacks, MAIR) "
        "spend almost all their time on the same convolutions. On the small network the loop with "
        "all images in one tensor is as fast or slightly faster.\n\n"
        "With passes in bfloat16 (`--set precision=bfloat16`; weights and every reported accuracy "
        "stay float32), on a processor with such instructions, satbench is faster than every loop "
        "in every case, and much faster on the large network. The loops, as they are usually "
        "written, have no such passes. It is another training with other bits, and its share of "
        "the peak is relative to float32's. The "
        "[study of recipes](studies/recipe-sensitivity.md) has networks that were "
        "trained in this way. `torch.compile` has no line: on the small network it did not pay for "
        "its compilation, and on the large one it gained nothing.",
        train_table,
    ),
    Section(
        "Compared with an earlier version",
        "before.json",
        "The same benchmarks by this version and by the last one that did not compare its fast "
        "copies with their models, in turns within one run. Each version is a process with its own "
        "code. The times are CPU seconds. The ratio is the median of three starts, and a start is "
        "the median of its rounds. Above 1, this version is slower. The peer's code is the same on "
        "both sides: the distance of its ratio from 1 shows the noise of the run, and so does the "
        "range of the starts. This version compares each fast copy with its model, by a few passes "
        "of one image in each search, which take 5 to 10 milliseconds. A search of 32 images of "
        "the weak small network takes 30 milliseconds, so it is up to a quarter slower.",
        before_table,
    ),
    Section(
        "The attack's noise in a large training run",
        "noise.json",
        "The CPU seconds that one of 8 processes needs to draw noise in one step. The batch has "
        "2,048 images of 3×224×224; the process has 256 of them, in 8 parts. It draws only the "
        "numbers of its own images. An earlier version drew all numbers and cut out its own, which "
        "gives the same bits. On a GPU the same numbers are computed there.",
        noise_table,
    ),
    Section(
        "A batch in parts",
        "accumulate.json",
        "Training by `fmnist-sat` with each batch in parts (`accumulate`), from the same weights "
        "on the same images of Fashion-MNIST's test set. Weights: the length of the difference "
        "from the weights of the whole batch, relative to their length. Batch-norm computes its "
        "statistics over a part; without batch-norm, parts give the weights of the whole batch. "
        "Accuracies are on 1,000 held-out images, with a standard error of about 1.5 points.",
        accumulate_table,
    ),
    Section(
        "Share of the machine's convolution peak",
        "peak.json",
        "Rates count the multiplications and additions of a forward and an input gradient of the "
        "original model. All times are CPU times.",
        peak_table,
    ),
    Section(
        "Smooth activations in a warm process",
        "warm.json",
        "On processors with AVX-512, torch's expm1 and log1p are slow until the process has "
        "computed the tanh form of GELU or a similar function. So is every activation that uses "
        "them. satbench computes one before it trains or attacks (`satbench.calling.warm`). Before "
        "and after are measured in one process on one thread; each is the least of the rounds. "
        "In the network, it is a forward and the gradients of images and weights.",
        warm_table,
    ),
    Section(
        "Peak memory",
        "memory.json",
        "`satbench.evaluate` in a separate process. `growth` is relative to the smallest number of "
        "images. Witnesses and best points are kept on disk, and freed memory is returned to the "
        "system after every batch. Two things still grow: the data set itself (a byte per pixel), "
        "and oneDNN's cache of compiled convolutions, which holds one entry per batch size and is "
        "bounded. Parts of the fast suite attack only a share of the survivors, so their batches "
        "are full from about 1,000 images on.",
        memory_table,
    ),
)


def main(arguments: list[str] | None = None) -> None:
    """Write the page, or check it."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--check", action="store_true", help="write nothing, fail if out of date")
    options = made.parse_args(arguments)
    text = page(RESULTS)
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{PAGE} is out of date: run python benchmarks/report.py")


def page(results: Path) -> str:
    """Return the page; a benchmark without results has no section."""
    parts = [INTRODUCTION]
    for section in SECTIONS:
        files = sorted(results.glob(section.files))
        if files:
            parts.append(f"## {section.title}\n\n{section.text}\n")
        for file in files:
            result = json.loads(file.read_text(encoding="utf-8"))
            parts.append(f"{source(result)}\n\n{section.table(result)}\n")
    return "\n".join(parts)


def source(result: Result) -> str:
    """Return the command and the environment of a result."""
    where = result["environment"]
    packages = {"torch": where["torch"], "python": where["python"], **result.get("packages", {})}
    return (
        f"`{result['command']}`\n\n"
        f"{where['cpu']}, {where['threads']} of {where['cores']} cores, "
        f"load {where['load'][1]:.1f}, "
        f"{where['finished'][:10]}; "
        + ", ".join(f"{name} {version}" for name, version in packages.items())
        + (f"; {result['rounds']} rounds." if "rounds" in result else ".")
    )


if __name__ == "__main__":
    main()
