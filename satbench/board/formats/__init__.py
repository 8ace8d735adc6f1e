"""The export formats of a board; the same records give the same bytes on any machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from satbench.board.board import Board
from satbench.board.exports import render_csv, render_json
from satbench.board.formats.appendix import render_appendix
from satbench.board.formats.bibtex import render_bibtex
from satbench.board.formats.json_schema import render_schema
from satbench.board.formats.latex import render_latex


@dataclass(frozen=True)
class Format:
    """A format with one text: its purpose, and the function that writes a board."""

    summary: str
    render: Callable[[Board], str]


FORMATS: Mapping[str, Format] = {
    "csv": Format("one line a model, shares and counts with all digits", render_csv),
    "json": Format("the same, with groups, flags and comparisons with ReLU", render_json),
    "json-schema": Format("the JSON schema that the JSON holds", lambda board: render_schema()),
    "latex": Format("tables for a paper, with booktabs and siunitx", render_latex),
    "markdown": Format("an appendix for a paper: set-up, models, what to cite", render_appendix),
    "bibtex": Format("the papers that the rows rest on", render_bibtex),
}
"""The formats with one text; `robustbench` writes a folder (`satbench.board.formats.entries`)."""
