"""Write docs/studies/epochs.md: accuracy by epoch of the networks of a pre-registered study.

python benchmarks/epochs.py collect runs/studies/models/* runs/pilot-*
python benchmarks/epochs.py write [--check]

`collect` reads the folders of training runs into `results/epochs.json`; `write` draws the page and
its figure from it.  The same result gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from tables import table

from satbench.figures.drawing import figure_at
from satbench.figures.styles import looks_of
from satbench.figures.training import read_training
from satbench.studies import load_study
from satbench.studies.images import DatasetCache
from satbench.studies.plan import StudyOptions, plan_study, training_key

RESULT = Path(__file__).parent / "results" / "epochs.json"
FOLDER = Path(__file__).parents[1] / "docs" / "studies"
PAGE, FIGURE = FOLDER / "epochs.md", FOLDER / "epochs.svg"
STUDIES = ("smoothness-0.03", "smoothness-0.1", "smoothness-longer", "smoothness-larger")
LAST = 2  # the end of a training: its last two epochs

INTRODUCTION = (
    "# Accuracy by epoch in the pre-registered studies\n\n"
    "Have clean and robust accuracy stopped rising when training ends? The accuracies here are "
    "those of the 1,000 held-out training images after each epoch, clean and under PGD-10; "
    "training reports them and does not use them, and the test images are not touched. The "
    "learning rate rises for a fifth of the epochs and then falls to 0, so the last epochs always "
    "change little. What more epochs would bring is seen only by training longer, as the pilot "
    "does.\n\n"
    "Written by `python benchmarks/epochs.py write` from `benchmarks/results/epochs.json`, which "
    "`python benchmarks/epochs.py collect` reads from the folders of the training runs; do not "
    "edit it. The plan is in [preregistration.md](preregistration.md).\n"
)

PILOT_TEXT = (
    "One run each with a seed that no study uses. The ReLU runs of 8 and 16 epochs chose the "
    "number of epochs of the studies. The others were trained after the first evaluation and "
    "change nothing in the plan: they show what twice as many epochs would have brought. With "
    "1,000 images, the standard error of an accuracy is about 1.2 points.\n\n"
    "The plan has the commands of `pilot-8` and `pilot-16`. The others are made by the same, with "
    "`--epochs 32 --name pilot-32`, `--activation silu --epochs 16 --name pilot-16-silu` and "
    "`--activation silu --epochs 32 --name pilot-32-silu`.\n"
)


class Group(NamedTuple):
    """The runs of one arm: `clean` and `pgd10` have a row per run and a column per epoch."""

    study: str
    arm: str
    activation: str
    clean: tuple[tuple[float, ...], ...]
    pgd10: tuple[tuple[float, ...], ...]

    @property
    def epochs(self) -> int:
        """The epochs of each run."""
        return len(self.clean[0])

    @property
    def network(self) -> str:
        """The activation as the arm names it."""
        return self.arm.partition(",")[0]

    @property
    def attacker(self) -> str:
        """The attack of training, such as `PGD-2`."""
        return next(word for word in self.arm.split(", ") if word.startswith("PGD-"))

    @property
    def variant(self) -> str:
        """What else the arm names, such as `, smooth backward`."""
        rest = self.arm.removeprefix(self.network)
        return rest.replace(f", {self.attacker}", "")


def collect(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the accuracies by epoch of the finished runs in folders of `satbench train`.

    A run of no study, such as the pilot's, has an empty `study`, and its name as its arm.
    """
    arms = {}
    for name in STUDIES:
        for arm, cells in plan_study(load_study(name), StudyOptions(), DatasetCache()).rows.items():
            arms.update({cell.key: (name, arm) for cell in cells})
    rows = []
    for folder in folders:
        if not (folder / "metrics.jsonl").is_file():
            continue  # a run whose first epoch is not finished
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        own = config.pop("run")
        curve = read_training(folder)
        if curve.last.epoch < config["epochs"]:
            continue
        study, arm = arms.get(training_key(config, own["data"]), ("", curve.name))
        rows.append(
            {
                "study": study,
                "arm": arm,
                "activation": curve.activation,
                "seed": config["seed"],
                "held_out": curve.held_out,
                "clean": [round(one.held_out_clean, 4) for one in curve.epochs],
                "pgd10": [round(one.held_out_pgd10, 4) for one in curve.epochs],
            }
        )
    return {"rows": sorted(rows, key=lambda row: (row["study"], row["arm"], row["seed"]))}


def groups_of(result: dict[str, Any]) -> list[Group]:
    """Return the runs by study and arm, in the order of the studies and their arms."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in STUDIES:
        found.update({(name, arm.name): [] for arm in load_study(name).arms})
    for row in result["rows"]:
        found.setdefault((row["study"], row["arm"]), []).append(row)
    return [
        Group(
            *where,
            rows[0]["activation"],
            tuple(tuple(row["clean"]) for row in rows),
            tuple(tuple(row["pgd10"]) for row in rows),
        )
        for where, rows in found.items()
        if rows
    ]


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    groups = groups_of(result)
    parts = [INTRODUCTION]
    names = [name for name in STUDIES if any(group.study == name for group in groups)]
    if names:
        parts.append(
            f"![Held-out accuracy by epoch, the mean over seeds of each arm.]({FIGURE.name})\n"
        )
    for name in names:
        parts += [f"## [{name}]({name}.md)\n", _ends(name, groups), ""]
    pilots = [group for group in groups if not group.study]
    if pilots:
        parts += ["## Training longer\n", PILOT_TEXT, _pilots(pilots), ""]
    return "\n".join(parts).rstrip() + "\n"


def _ends(study: str, groups: Sequence[Group]) -> str:
    head = ["arm", "runs", "epochs", "clean, halfway", "clean, end", "rise in the last 2"]
    head += ["PGD-10, halfway", "PGD-10, end", "rise in the last 2"]
    rows = []
    for group in groups:
        if group.study == study:
            cells = [group.arm, str(len(group.clean)), str(group.epochs)]
            for runs in (group.clean, group.pgd10):
                rises = [run[-1] - run[-1 - LAST] for run in runs]
                half = fmean(run[group.epochs // 2 - 1] for run in runs)
                cells += [_percent(half), _percent(fmean(run[-1] for run in runs)), _rise(rises)]
            rows.append(cells)
    return (
        table(head, rows) + "\n\nPercent and points, means over runs; ± is the standard deviation."
    )


def _pilots(groups: Sequence[Group]) -> str:
    head = ["run", "activation", "epochs", "clean, last epoch", "PGD-10, last epoch"]
    head += ["PGD-10, best epoch"]
    rows = [
        [
            group.arm,
            group.activation,
            str(group.epochs),
            _percent(group.clean[0][-1]),
            _percent(group.pgd10[0][-1]),
            _percent(max(group.pgd10[0])),
        ]
        for group in sorted(groups, key=lambda group: (group.activation, group.epochs))
    ]
    return table(head, rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _rise(rises: Sequence[float]) -> str:
    spread = f" ± {100 * stdev(rises):.1f}" if len(rises) > 1 else ""
    return f"{100 * fmean(rises):+.1f}{spread}".replace("-", "−")


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the mean accuracies of each arm against the epoch, a row per study and attacker."""
    groups = [group for group in groups_of(result) if group.study]
    rows = list(dict.fromkeys((group.study, group.attacker) for group in groups))
    names = [(group.activation.partition("(")[0], group.variant) for group in groups]
    looks = dict(zip(groups, looks_of(names), strict=True))
    with figure_at(path, (9.0, 1.2 + 3.0 * len(rows))) as (figure, _):
        figure.clear()
        panels = figure.subplots(len(rows), 2, squeeze=False, sharey="row")
        lines: dict[str, Any] = {}
        for row, pair in zip(rows, panels, strict=True):
            for axes, kind in zip(pair, ("clean", "PGD-10"), strict=True):
                for group in (one for one in groups if (one.study, one.attacker) == row):
                    runs = group.clean if kind == "clean" else group.pgd10
                    means = [100 * fmean(column) for column in zip(*runs, strict=True)]
                    look = looks[group]
                    lines[f"{group.network}{group.variant}"] = axes.plot(
                        range(1, len(means) + 1),
                        means,
                        color=look.colour,
                        linestyle=look.dash,
                        linewidth=1.6,
                    )[0]
                axes.set(title=f"{row[0]}, trained by {row[1]}: {kind}", xlabel="epoch")
                axes.title.set_fontsize(10)
                axes.xaxis.get_major_locator().set_params(integer=True)
                axes.grid(color="#dddddd", linewidth=0.6)
                axes.set_axisbelow(True)
            pair[0].set_ylabel("held-out accuracy (%)")
        figure.legend(
            list(lines.values()),
            list(lines),
            loc="outside lower center",
            ncols=3,
            frameon=False,
            fontsize=9,
        )


def main(arguments: list[str] | None = None) -> None:
    """Read runs, or write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    reader = commands.add_parser("collect", help="read the folders of training runs")
    reader.add_argument("folders", nargs="+", type=Path, metavar="RUN")
    writer = commands.add_parser("write", help="write the page and its figure")
    writer.add_argument("--check", action="store_true", help="fail if the page is out of date")
    chosen = parser.parse_args(arguments)
    if chosen.command == "collect":
        lines = map(json.dumps, collect(chosen.folders)["rows"])  # a line for each run
        RESULT.write_text('{"rows": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")
        return
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    if chosen.check:
        sys.exit(page(result) != PAGE.read_text(encoding="utf-8") and f"{PAGE} is out of date")
    PAGE.write_text(page(result), encoding="utf-8")
    draw(result, FIGURE)


if __name__ == "__main__":
    main()
