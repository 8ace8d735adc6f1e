"""Write docs/suites.md: how strong suites are, image by image, from `results/suites-*.json`.

python benchmarks/suites_page.py [--check]

The same results give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from report import source
from tables import Result, table

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "suites.md"
FULL = "autoattack"
ALLOWED, OVERLOOKED, CHEAPER = 0.001, 1 / 500, 25  # as in satbench/board/cost.py

INTRODUCTION = (
    "# How strong suites are\n\n"
    "Suites beside AutoAttack and beside published rivals, on the same images of the same "
    "networks, image by image. Written by `python benchmarks/suites_page.py` from "
    "`benchmarks/results/suites-*.json`; do not edit it. [COST.md](COST.md) has `fast` beside "
    "AutoAttack on the models of the boards.\n\n"
    "- **Robust**: percent of all images that are right after the suite.\n"
    "- **Above AutoAttack**: the difference in points. Below 0, the suite found more.\n"
    "- **Missed**: images that AutoAttack broke and the suite did not. **AutoAttack missed**: the "
    "reverse.\n"
    "- **Passes**: forwards plus backwards, those of surrogates too, for each image that is right "
    "without an attack. **Fewer**: passes of AutoAttack divided by these.\n\n"
    "The aim of `fast` on each network: at most 0.1 points above AutoAttack, at most one image in "
    "500 missed, and 25 times fewer passes where gradients do not mislead. Where they do, `fast` "
    "may spend what AutoAttack spends, and its record is flagged.\n"
)


class Section(NamedTuple):
    """A section of the page: its title, its result's file, its text, and whether nets are shown."""

    title: str
    file: str
    text: str
    each: bool = False


SECTIONS = (
    Section(
        "The test on networks that the choice never saw",
        "suites-held-out.json",
        "Networks that a script trains with seeds of 2,000 and more, on the first 2,000 test "
        "images. Version 3 of `fast` was fixed before the first of them was trained "
        "([decision 22](decisions/0022-fast-3.md)).",
        each=True,
    ),
    Section(
        "The networks on which version 3 was chosen",
        "suites-development.json",
        "Networks of training seed 21, on test images 5,000 to 5,499, which no table reports.",
    ),
    Section(
        "Rivals",
        "suites-rivals.json",
        "`pma` and `pma-plus` (arXiv:2411.15210), `malt-apgd` (MALT as published, "
        "arXiv:2407.02240) and `a3` (arXiv:2203.05154), each by itself, on shipped networks and on "
        "those of the first section.",
    ),
)


class Line(NamedTuple):
    """A suite on some networks: images, right ones, those left, counts beside AutoAttack."""

    name: str
    suite: str
    images: int
    right: int
    left: int
    full_left: int
    missed: int
    full_missed: int
    passes: int
    full_passes: int

    @property
    def above(self) -> float:
        """Robust accuracy minus that under AutoAttack."""
        return (self.left - self.full_left) / self.images

    @property
    def fewer(self) -> float:
        """Passes of AutoAttack divided by those of the suite."""
        return self.full_passes / self.passes

    def cells(self) -> list[str]:
        """Return the line of the table."""
        own = self.suite == FULL
        return [
            self.name,
            f"`{self.suite}`",
            f"{self.left / self.images:.2%}",
            "" if own else f"{100 * self.above:+.2f}".replace("-", "−"),
            "" if own else str(self.missed),
            "" if own else str(self.full_missed),
            f"{self.passes / self.right:,.0f}",
            "" if own else f"{self.fewer:.1f}",
        ]


def lines_of(rows: Sequence[dict[str, Any]]) -> list[Line]:
    """Return a line for each suite on each network; rows without AutoAttack have none."""
    full = {(row["net"], row.get("seed", 0)): row for row in rows if row["suite"] == FULL}
    made = []
    for row in rows:
        beside = full.get((row["net"], row.get("seed", 0)))
        if beside is None:
            continue
        # `missed` are the images that any other suite broke.  One that AutoAttack did not miss
        # was broken by AutoAttack.
        here, there = set(row["missed"]), set(beside["missed"])
        made.append(
            Line(
                row["net"],
                row["suite"],
                row["images"],
                row["clean"],
                row["robust"],
                beside["robust"],
                len(here - there),
                len(there - here),
                row["passes"],
                beside["passes"],
            )
        )
    return made


def total(name: str, lines: Sequence[Line]) -> Line:
    """Return the sum of some lines of one suite."""
    counts = zip(*(line[2:] for line in lines), strict=True)
    return Line(name, lines[0].suite, *(sum(count) for count in counts))


def section_of(section: Section, result: Result) -> str:
    """Return a section's aims and table."""
    rows = result["rows"]
    lines = lines_of(rows)
    kinds = {row["net"]: row["kind"] for row in rows}
    suites = list(dict.fromkeys(line.suite for line in lines))
    groups = [("all", set(kinds))]
    groups += (
        [(net, {net}) for net in kinds]
        if section.each
        else [
            (kind, {net for net, other in kinds.items() if other == kind})
            for kind in dict.fromkeys(kinds.values())
        ]
    )
    shown = [
        total(name if place == 0 else "", mine)
        for name, nets in groups
        for place, suite in enumerate(suites)
        if (mine := [line for line in lines if line.name in nets and line.suite == suite])
    ]
    head = ["network", "suite", "robust", "above AutoAttack", "missed", "AutoAttack missed"]
    head += ["passes", "fewer"]
    aims = aims_of("fast", lines)
    return "\n\n".join(["\n".join(aims), table(head, [line.cells() for line in shown])])


def aims_of(suite: str, lines: Sequence[Line]) -> list[str]:
    """Return a sentence for each aim: on how many networks a suite reaches it, and where not."""
    mine = [line for line in lines if line.suite == suite]
    aims = {
        "at most 0.1 points above AutoAttack": [line.above <= ALLOWED for line in mine],
        "at most one image in 500 missed": [
            line.missed <= OVERLOOKED * line.images for line in mine
        ],
        "25 times fewer passes": [line.fewer >= CHEAPER for line in mine],
    }
    said = []
    for aim, reached in aims.items():
        missing = [line.name for line, holds in zip(mine, reached, strict=True) if not holds]
        where = f", not on {', '.join(missing)}" if missing else ""
        said.append(f"- `{suite}`, {aim}: on {sum(reached)} of {len(mine)} networks{where}.")
    return said


def page(results: Path) -> str:
    """Return the page; a section without a result is left out."""
    parts = [INTRODUCTION]
    for section in SECTIONS:
        file = results / section.file
        if file.exists():
            result = json.loads(file.read_text(encoding="utf-8"))
            parts.append(f"## {section.title}\n\n{section.text}\n\n{source(result)}\n")
            parts.append(f"{section_of(section, result)}\n")
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Write the page, or check it."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--check", action="store_true", help="write nothing, fail if out of date")
    options = made.parse_args(arguments)
    text = page(RESULTS)
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{PAGE} is out of date: run python benchmarks/suites_page.py")


if __name__ == "__main__":
    main()
