"""Reports on a transfer matrix: a table for terminals, one in markdown, and plain data."""

from __future__ import annotations

from math import nan
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from satbench.core.console import FittingTable, words
from satbench.core.errors import SatbenchError
from satbench.core.markdown import MISSING, cell, code, percent
from satbench.core.text.terminal import one_line
from satbench.figures.drawing import heat_map
from satbench.figures.picture import FORMATS, check_can_draw
from satbench.records.transfers import TransferMatrix, TransferTarget

CLEAN = "no attack"
WORST = "worst case"
WHITE_BOX = "*"
AXES = ("source (S): images are made on it", "target (T): images are judged on it")


def matrix_rows(matrix: TransferMatrix) -> list[tuple[str, list[str]]]:
    """Return the table's rows: no attack, every source, and the worst case over sources."""
    rows = [(CLEAN, [_share(matrix, target.clean_correct) for target in matrix.targets])]
    for number, source in enumerate(matrix.sources):
        cells = [
            _share(matrix, target.correct[number]) + WHITE_BOX * target.white_box[number]
            for target in matrix.targets
        ]
        rows.append((source.name, cells))
    rows.append((WORST, [_share(matrix, target.worst) for target in matrix.targets]))
    return rows


def matrix_table(matrix: TransferMatrix) -> FittingTable:
    """Return the matrix for a terminal: a line per target, numbered sources; see `legend`."""
    rows = matrix_rows(matrix)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("target", overflow="fold")
    numbers = (f"S{number}" for number, _ in enumerate(matrix.sources, 1))
    clean, worst = (heading.replace(" ", "\n") for heading in (CLEAN, WORST))
    for heading in (clean, *numbers, worst):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, target in enumerate(matrix.targets):
        table.add_row(words(target.model.name), *(cells[place] for _, cells in rows))
    return FittingTable(table, (clean,))


def note(matrix: TransferMatrix) -> str:
    """Return a sentence that explains the numbers."""
    said = (
        "Robust accuracy (%) of each target under images made on each source, judged on the "
        "target; the worst case is over the sources, image by image."
    )
    if any(any(target.white_box) for target in matrix.targets):
        said += (
            f"  {WHITE_BOX}: the source holds the target itself, a white-box attack, which the "
            "worst case leaves out."
        )
    return said


def legend(matrix: TransferMatrix) -> str:
    """Return the names of the numbered sources with their cost, one line each."""
    return "\n".join(
        f"S{number}  {one_line(source.name)}: {source.forwards:,} forwards, "
        f"{source.backwards:,} backwards"
        for number, source in enumerate(matrix.sources, 1)
    )


def matrix_markdown(matrix: TransferMatrix) -> str:
    """Return the matrix as a page of markdown: what was run, the table, the cost."""
    head = ["Source", *(code(target.model.name) for target in matrix.targets)]
    lines = [head, ["---", *["---:"] * len(matrix.targets)]]
    for name, cells in matrix_rows(matrix):
        label = name if name in (CLEAN, WORST) else code(name)
        bold = "**" if name == WORST else ""
        lines.append([f"{bold}{label}{bold}", *(f"{bold}{cell}{bold}" for cell in cells)])
    data = matrix.dataset
    cost = (
        f"{code(source.name)} {source.forwards:,} forwards and {source.backwards:,} backwards"
        for source in matrix.sources
    )
    return "\n".join(
        (
            "# Transfer",
            "",
            f"{code(matrix.attack)} on the first {matrix.n:,} images of the {cell(data.split)} "
            f"split of {cell(data.name)} (digest {code(data.digest[:12])}), "
            f"{matrix.norm}:{matrix.eps}, seed {matrix.seed}.",
            "",
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
            note(matrix).replace(WHITE_BOX, "\\" + WHITE_BOX),
            "",
            f"Made once for all targets, at the cost of: {'; '.join(cost)}.",
            "",
        )
    )


def draw_matrix(matrix: TransferMatrix, beside: Path) -> tuple[list[Path], str]:
    """Draw the heat map next to the matrix; return its files, or why there are none."""
    try:
        check_can_draw()
    except SatbenchError as error:
        return [], str(error)
    n = matrix.n
    columns = [f"T{k} {target.model.name}" for k, target in enumerate(matrix.targets, 1)]
    values = [[target.clean_correct / n for target in matrix.targets]]
    values += [
        [target.correct[number] / n for target in matrix.targets]
        for number in range(len(matrix.sources))
    ]
    values.append([nan if t.worst is None else t.worst / n for t in matrix.targets])
    rows = [f"S{k} {source.name}" for k, source in enumerate(matrix.sources, 1)]
    rows = [CLEAN, *rows, WORST]
    title = (
        f"Transfer: {matrix.attack.partition('(')[0]}, {matrix.norm}:{matrix.eps}, "
        f"{n:,} images of {matrix.dataset.name}"
    )
    if any(any(target.white_box) for target in matrix.targets):
        title += "\n(source = target: a white-box attack)"
    files = [beside.with_suffix(suffix) for suffix in FORMATS]
    for file in files:
        heat_map(values, rows, columns, title, file, AXES)
    return files, ""


def matrix_summary(matrix: TransferMatrix, files: list[Path]) -> dict[str, Any]:
    """Return the matrix as plain data, for `--json`."""
    return {
        "attack": matrix.attack,
        "dataset": matrix.dataset.name,
        "n": matrix.n,
        "threat": f"{matrix.norm}:{matrix.eps}",
        "seed": matrix.seed,
        "sources": [
            {"name": s.name, "forwards": s.forwards, "backwards": s.backwards}
            for s in matrix.sources
        ],
        "targets": [_target(matrix, target) for target in matrix.targets],
        "files": [str(file) for file in files],
    }


def _target(matrix: TransferMatrix, target: TransferTarget) -> dict[str, Any]:
    return {
        "model": target.model.name,
        "clean_accuracy": target.clean_correct / matrix.n,
        "robust_accuracy": [
            {"source": source.name, "accuracy": correct / matrix.n, "white_box": white_box}
            for source, correct, white_box in zip(
                matrix.sources, target.correct, target.white_box, strict=True
            )
        ],
        "worst_case": None if target.worst is None else target.worst / matrix.n,
        "worst_case_interval": None if target.worst is None else matrix.interval(target.worst),
        "broken_by": target.broken_by,
        "forwards": target.forwards,
    }


def _share(matrix: TransferMatrix, correct: int | None) -> str:
    return MISSING if correct is None else percent(correct / matrix.n)
