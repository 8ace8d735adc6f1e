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
    """What is said of one benchmark; `files` is the pattern of its results."""

    title: str
    files: str
    text: str
    table: Callable[[Result], str]


INTRODUCTION = """# Benchmarks

Written by `python benchmarks/report.py` from `benchmarks/results/`; how to run them is in
[`benchmarks/README.md`](../benchmarks/README.md).

The headline is the **CPU ratio**: CPU time of a contestant's process over satbench's, the median
of the rounds of one run, each round one call of every contestant, in rotating order. Above 1,
satbench is faster. The machine was busy with other work, which process CPU time leaves out (but
for shared caches) and wall time does not. One thread throughout.
"""

SECTIONS = (
    Section(
        "PGD beside other packages",
        "pgd*.json",
        "**These tables time satbench's inner engine, not what a user calls.** An earlier "
        "version of the script made them. It left out preflight, the diagnosis, the record and "
        "the files of `satbench.evaluate`; of the peers it timed the attack's call alone. Through "
        "`satbench.evaluate` the ratios are lower, and on few images below 1. The script now times "
        "`satbench.evaluate`, `satbench.attack` and a bare early-stopping loop with all costs; it "
        "has not been run yet for this page. "
        "Every contestant runs the same attack from the clean image, in steps of eps/4. All "
        "images are right when clean, so none is skipped for nothing. `F / image` and "
        "`B / image` are forwards and backwards, "
        "satbench's clean pass and judge included. `survive` is judged alike for all; `differ` "
        "counts the images whose verdict is not satbench's. With `keep=last` no image leaves the "
        "batch. The large net is pyautoattack's ResNet-18, which no radius of use finds robust: "
        "at 0.25/255 (1/1020) most of its images survive, and that stands in for a robust model.",
        pgd_table,
    ),
    Section(
        "AutoAttack's parts beside pyautoattack",
        "autoattack*.json",
        "Each part alone on the same images with the same seeds; the package on the model as it "
        "came, with the same judge. These tables too time the inner engine: an earlier version of "
        "the script made them.",
        autoattack_table,
    ),
    Section(
        "Adversarial training beside plain loops",
        "train*.json",
        "An epoch of single-step adversarial training (PGD-1, batch-norm in eval mode for the "
        "attack), reading the images included: satbench's steps, the usual loop with "
        "torchattacks' PGD (images through PIL and `ToTensor`, as torchvision hands them out, or "
        "all ready as one tensor), a loop as MAIR's trainers run it, and one as the code of Wong "
        "et al. (2020) runs it, whose attack makes the weights' gradients too. Each is a process "
        "of its own, as its user runs it. All start from the same weights; `first loss` is the "
        "mean over the first epoch, which must be alike. satbench freezes the weights while it "
        "attacks, keeps images as bytes on the device and nets channels-last, and computes first "
        "what makes smooth activations quicker (see the section on a warm process). The share "
        "counts what the method needs: a forward and an input gradient, then a forward and a "
        "gradient of the weights. The large net is ResNet-18 on noise of CIFAR's shape, for only "
        "the shape counts, at a low rate, so that two batches of noise leave the losses alike. "
        "In float32 satbench is clearly faster on the small net than the loops that read their "
        "images through PIL, and with a smooth activation made of an exponential or a logarithm, "
        "here parametric softplus, than every loop on both nets. With ReLU, and with SILU, which "
        "gains nothing of a warm process in a net, it is not on the large one: loops that ask for "
        "the image's gradient alone in the attack (torchattacks, MAIR) spend almost all time on "
        "the same convolutions; and on the small net the loop whose images lie ready as a tensor "
        "is as fast or a little faster. With passes in bfloat16 (`--set precision=bfloat16`; "
        "weights and every reported accuracy stay float32), on a processor with such "
        "instructions, it is faster than every loop in every case, by far on the large net; the "
        "loops, as they are usually written, know no such passes. That is another training, to "
        "other bits, and its share of the peak is against "
        "float32's. Nets that were trained so are in the "
        "[study of recipes](studies/recipe-sensitivity.md). `torch.compile` has no line: on the "
        "small net it gained too little to win back its compilation, on the large one nothing.",
        train_table,
    ),
    Section(
        "Beside an earlier version",
        "before.json",
        "The same benchmarks by this version and by the last one that did not prove its fast "
        "copies, in turns within one run. Each version is a process with its own code. The times "
        "are CPU seconds. The ratio is the median of three starts, and a start is the median of "
        "its rounds. Above 1, this version is slower. The peer's code is the same on both sides: "
        "how far its ratio is from 1 is the noise of the run, and so is the range of the starts. "
        "This version compares each fast copy with its model, by a few passes of one image in "
        "each search: 5 to 10 milliseconds. A search of 32 images of the weak small net takes 30 "
        "milliseconds, so that it is up to a quarter slower there. That is the price of the proof.",
        before_table,
    ),
    Section(
        "The attacker's noise in a large training",
        "noise.json",
        "CPU seconds that one of 8 processes draws noise for in a step of a batch of 2,048 images "
        "of 3×224×224, of which it has 256, in 8 parts. It draws just the numbers of its own "
        "images; to draw all and cut the own out, as satbench did before, gives the same bits. On "
        "a GPU the same numbers are computed there.",
        noise_table,
    ),
    Section(
        "A batch in parts",
        "accumulate.json",
        "Training by `fmnist-sat` with each batch in parts (`accumulate`), from the same weights "
        "on the same images of Fashion-MNIST's test set. Weights: the length of the difference to "
        "those of the batch at once, over theirs. Batch-norm takes the statistics of a part; "
        "without it, parts give the weights of the batch. Accuracies are on 1,000 held-out images, "
        "with a standard error of about 1.5 points.",
        accumulate_table,
    ),
    Section(
        "Share of the machine's convolution peak",
        "peak.json",
        "Rates count what the model's author wrote: multiplications and additions of a forward "
        "and an input gradient. All by CPU time.",
        peak_table,
    ),
    Section(
        "Smooth activations in a warm process",
        "warm.json",
        "On processors with AVX-512 torch's expm1 and log1p are slow in a process until a tanh "
        "form of GELU or the like was computed in it, and with them every activation that is made "
        "of them. satbench computes one before it trains or attacks (`satbench.calling.warm`). "
        "Before and after in one process, one thread, the least of the rounds; in the net, a "
        "forward and the gradients of images and weights.",
        warm_table,
    ),
    Section(
        "Peak memory",
        "memory.json",
        "`satbench.evaluate` in a process of its own. `growth` is against the smallest number of "
        "images. Witnesses and best points wait on the disk, and freed memory goes back to the "
        "system after every batch. What still grows is the data set itself (a byte a pixel, as it "
        "is read) and oneDNN's cache of compiled convolutions, one for each size of a batch that "
        "images have left, which is bounded. Parts of the fast suite take on a share of the "
        "survivors, so that their batches are full from about 1,000 images on.",
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
