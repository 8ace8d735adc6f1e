"""The commands that write files, each with its smallest input, for kill_points.py.

`COMMANDS` has a case for each.  A word with `*` in it stands for the files that it matches.
Functions write the initial files of a case to a folder, each once per process.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

MODEL, OTHER = "fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0"
TENSORFLOW = "resnext(depth=50,groups=1,width=1)"
BOARD = """
schema = 1
summary = "a small board"
dataset = "fashion-mnist"
split = "test"
n = 8
threat = "linf:0.1"
suites = [["pgd-3", "square(queries=10)"]]
columns = ["clean", "best_known"]
"""
ENTRY = {
    "link": "https://example.org/paper",
    "name": "A paper",
    "authors": "Jane Doe",
    "additional_data": False,
    "number_forward_passes": 1,
    "dataset": "cifar10",
    "venue": "ICLR 2021",
    "architecture": "WideResNet-28-10",
    "eps": "8/255",
    "clean_acc": "89.69",
    "reported": "62.5",
    "autoattack_acc": "59.53",
}

Run = Callable[..., int]
"""Runs a command, given its words and the folder, and `before` as a case has it."""


@dataclass(frozen=True)
class Case:
    """A command: its words, its initial files, and the set-up of its process.

    A long one is disturbed only at `most` operations, spread evenly over all of them.
    """

    words: tuple[str, ...]
    given: tuple[Callable[[Path, Run], None], ...] = ()
    before: Callable[[Path], None] | None = None
    most: int | None = None


def expand(words: Sequence[str], folder: Path) -> list[str]:
    """Return the words, with each word that contains `*` replaced by the matching files."""
    return [
        name
        for word in words
        for name in (
            sorted(str(path.relative_to(folder)) for path in folder.glob(word))
            if "*" in word
            else [word]
        )
    ]


def write_images(folder: Path, run: Run) -> None:
    """Write forty noisy images of four patterns."""
    rng, labels = np.random.default_rng(0), np.arange(40) % 4
    x = rng.random((4, 1, 8, 8))[labels] + 0.05 * rng.standard_normal((40, 1, 8, 8))
    np.savez(folder / "images.npz", x=np.clip(x, 0, 1).astype(np.float32), y=labels)


def write_unseen_images(folder: Path, run: Run) -> None:
    """Write training images and two test images, of a class that no network learns.

    So nothing is to be attacked: the attacks take most of the time of a study.
    """
    write_images(folder, run)
    with np.load(folder / "images.npz") as images:
        x, labels = images["x"], images["y"]
    np.savez(folder / "unseen.npz", x=x[labels == 3][:2], y=np.array([3, 3]))
    labels[labels == 3] = 0
    labels[0] = 3
    np.savez(folder / "mostly.npz", x=x, y=labels)


def evaluate(folder: Path, run: Run) -> None:
    """Write two records of one model."""
    for attack, out in (("pgd-3", "first"), ("square(queries=10)", "second")):
        _do(run, folder, "eval", "--model", MODEL, "--attack", attack, *FEW, "--out", out)


def train(folder: Path, run: Run) -> None:
    """Train a network of width 1, in the folder runs/mine."""
    _do(run, folder, *TRAIN, "--out", "runs")


def do_shards(folder: Path, run: Run) -> None:
    """Run both shards of an evaluation, each into its own folder."""
    for number in "12":
        _do(run, folder, *EVAL, "--shard", f"{number}/2", "--out", f"shard-{number}")


def do_shards_together(folder: Path, run: Run) -> None:
    """Run both shards of an evaluation into one folder."""
    for number in "12":
        _do(run, folder, *EVAL, "--shard", f"{number}/2", "--out", "shards")


def make_board(folder: Path, run: Run) -> None:
    """Write a checkout with a board without records, a zoo of one model, and the suites."""
    from satbench.core.content import content_folder

    board = folder / "leaderboard" / "small"
    board.mkdir(parents=True)
    (board / "board.toml").write_text(BOARD)
    zoo, there = folder / "model_zoo", content_folder("model_zoo")
    for name in (f"cards/{MODEL}.json", f"weights/{MODEL}.safetensors", "surrogates.toml"):
        (zoo / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(there / name, zoo / name)
    shutil.copytree(content_folder("attacks"), folder / "attacks")
    (folder / "README.md").write_text(
        "<!-- leaderboard:begin -->\n<!-- leaderboard:end -->\n"
        "<!-- studies:begin -->\n<!-- studies:end -->\n"
    )


def make_model(folder: Path, run: Run) -> None:
    """Write weights and a card of a new model: a shipped one with slightly changed weights."""
    from safetensors.numpy import load_file, save_file

    from satbench.model_zoo.card import find_card

    state = load_file(find_card(MODEL)[1])
    moved = {name: np.asarray(one * 1.01, one.dtype) for name, one in state.items()}
    save_file(moved, folder / "net.safetensors")
    _do(run, folder, *CARD)


def evaluate_model(folder: Path, run: Run) -> None:
    """Evaluate that model as the board requires."""
    attacks = ("--attack", "pgd-3", "--attack", "square(queries=10)")
    images = ("--dataset", "fashion-mnist", "--norm", "linf", "--eps", "0.1", *FEW)
    _do(run, folder, "eval", "--model", "own/own.json", *attacks, *images, "--out", "results")


def submit(folder: Path, run: Run) -> None:
    """Write a submission of it to the board."""
    run_here = partial(run, before=here)
    _do(run_here, folder, *expand(SUBMIT, folder), "--out", "submission")


def write_entries(folder: Path, run: Run) -> None:
    """Write two entries in the layout of RobustBench."""
    place = folder / "model_info" / "cifar10" / "Linf"
    place.mkdir(parents=True)
    for name in ("Doe2021A", "Doe2021B"):
        (place / f"{name}.json").write_text(json.dumps(ENTRY))


def write_checkpoint(folder: Path, run: Run) -> None:
    """Write a checkpoint of TensorFlow 1."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))
    from bundles import to_tensorflow, write_bundle

    from satbench.networks.build import build_network

    write_bundle(folder / "theirs" / "net", to_tensorflow(build_network(TENSORFLOW, "silu", 5)))


def here(folder: Path) -> None:
    """Make the folder the checkout in which satbench runs."""
    content = import_module("satbench.core.content")
    content._PACKAGE = folder / "satbench"  # type: ignore[attr-defined]


def demonstrate_less(folder: Path) -> None:
    """Reduce the demo to eight images and a weak attack."""
    demo = import_module("satbench.evaluation.demo")
    demo.THREE_ATTACKS, demo.THREE_EXAMPLES = ("pgd-2", "pgd-3"), 8  # type: ignore[attr-defined]


def _do(run: Run, folder: Path, *words: str) -> None:
    code = run(words, folder)
    assert code == 0, f"satbench {' '.join(words)} ended with {code}"


FEW = ("--n-examples", "8", "--batch-size", "4", "--quiet")
EVAL = ("eval", "--model", MODEL, "--attack", "pgd-2", *FEW)
RECORD, SECOND = "first/*.json", "second/*.json"
TRAIN = (
    *("train", "--recipe", "fmnist-sat", "--data", "images.npz", "--arch", "tiny(width=1)"),
    *("--epochs", "2", "--set", "batch_size=16", "--set", "held_out=8", "--set", "ema_decay=0.9"),
    *("--device", "cpu", "--threads", "1", "--quiet", "--name", "mine"),
)
STUDY = (
    *("study", "negative-inputs", "--seeds", "0", "--n-examples", "2", "--device", "cpu"),
    *("--set", "dataset=arrays:mostly.npz", "--eval-dataset", "arrays:unseen.npz", "--quiet"),
    *("--set", "architecture=tiny(width=1)", "--set", "epochs=1", "--set", "batch_size=16"),
    *("--set", "held_out=8", "--threads", "1"),
    *("--store", "store", "--results", "results", "--docs", "pages"),
)
CARD = (
    *("models", "card", "net.safetensors", "--arch", "tiny(width=8)", "--activation", "relu"),
    *("--shape", "1x28x28", "--licence", "MIT", "--name", "own", "--out", "own"),
)

SUBMIT = ("submit", "results/*.json", "--by", "me", "--model", "own/own.json", "--board", "small")
SUBMITTED = (make_board, make_model, evaluate_model, submit)

COMMANDS: dict[str, Case] = {
    "eval": Case((*EVAL, "--out", "out")),
    "eval --again": Case(
        (*EVAL[:3], "--attack", "pgd-3", *FEW, "--out", "first", "--again"), (evaluate,)
    ),
    "eval --shard": Case((*EVAL, "--out", "out", "--shard", "1/2")),
    "merge-shards": Case(
        ("merge-shards", "shards", "--workers", "1", "--quiet"), (do_shards_together,)
    ),
    "merge-shards --out": Case(
        ("merge-shards", "shard-1", "shard-2", "--workers", "1", "--quiet", "--out", "out"),
        (do_shards,),
    ),
    "curve": Case(
        (
            *("curve", "--model", MODEL, "--attack", "foolbox.fmn(steps=2)", "--at-marks", "pgd-2"),
            *(*FEW, "--out", "out"),
        )
    ),
    "transfer": Case(
        (
            *("transfer", "--source", OTHER, "--target", MODEL, *FEW, "--out", "out"),
            *("--attack", "transfer(steps=2)"),
        )
    ),
    "certify": Case(
        ("certify", "--model", MODEL, "--method", "ibp", "--n-examples", "4", "--out", "out")
    ),
    "train": Case((*TRAIN, "--out", "out"), (write_images,)),
    "plot": Case(("plot", "runs/mine"), (write_images, train)),
    "study": Case(STUDY, (write_unseen_images,), most=12),
    "leaderboard build": Case(
        (
            *("leaderboard", "build", "--records", "first", "--out", "board", "--docs", "docs"),
            *("--readme", "README.md"),
        ),
        (evaluate, make_board),
    ),
    "leaderboard export": Case(
        ("leaderboard", "export", "--format", "csv", "--records", "first", "--out", "board.csv"),
        (evaluate,),
    ),
    "leaderboard fill": Case(
        ("leaderboard", "fill", "small", "--model", MODEL, "--workers", "1", "--quiet"),
        (make_board,),
        here,
    ),
    "leaderboard import": Case(
        ("leaderboard", "import", "robustbench", "model_info", "--out", "imported"),
        (write_entries,),
    ),
    "leaderboard page": Case(
        ("leaderboard", "page", "--records", "first", "--out", "page"), (evaluate,)
    ),
    "images": Case(("images", RECORD, "--n", "2", "--out", "out"), (evaluate,)),
    "recheck": Case(
        ("recheck", RECORD, "--images", "2", "--seed", "1", "--out", "out", "--quiet"), (evaluate,)
    ),
    "challenge": Case(
        ("challenge", RECORD, "--attack", "square(queries=5)", "--quiet"), (evaluate,)
    ),
    "merge": Case(("merge", RECORD, SECOND, "--out", "out"), (evaluate,)),
    "submit": Case((*SUBMIT, "--out", "submission"), SUBMITTED[:-1], here),
    "review": Case(("review", "submission", "--comment", "comment.md"), SUBMITTED, here),
    "review --accept": Case(("review", "submission", "--accept"), SUBMITTED, here),
    "models card": Case((*CARD[:-1], "again"), (make_model,)),
    "models add": Case(("models", "add", "own/own.json", "--zoo", "zoo"), (make_model,)),
    "models cards": Case(
        ("models", "cards", "--records", "first", "--out", "pages"),
        (make_board, evaluate),
        here,
    ),
    "models import-tf1": Case(
        (
            *("models", "import-tf1", "theirs/net", "--arch", TENSORFLOW, "--activation", "silu"),
            *("--classes", "5", "--size", "64", "--name", "net", "--out", "out"),
        ),
        (write_checkpoint,),
    ),
    "export": Case(("export", MODEL, "--out", "out")),
    "export --form torchscript": Case(("export", MODEL, "--form", "torchscript", "--out", "out")),
    "export --form hub": Case(("export", MODEL, "--form", "hub", "--out", "out")),
    "attacks --catalogue": Case(("attacks", "--catalogue"), (make_board,), here),
    "demo": Case(("demo", "--out", "out", "--quiet"), (), demonstrate_less),
}
