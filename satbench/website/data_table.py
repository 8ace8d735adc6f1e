"""Tables of the site: plain HTML, which the script of the pages makes sortable and filterable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from satbench.core.markdown import MISSING


@dataclass(frozen=True)
class PageColumn:
    """A column: its `key` is used in the address of the page, its `title` is the heading.

    `help` explains it.  A column that is not `shown` is hidden until somebody chooses it; on a
    phone, so is one that is not `narrow`.  One that is `chosen` has a list of its values to
    filter by.  The title of one that is `upright` is written upwards.
    """

    key: str
    title: str
    help: str = ""
    kind: Literal["text", "number"] = "text"
    shown: bool = True
    narrow: bool = True
    chosen: bool = False
    upright: bool = False


@dataclass(frozen=True)
class Span:
    """An interval drawn in a cell, in 200 units with 0 in the middle; `is_shown` fills its mean.

    `cut_low` and `cut_high` say that it extends beyond the drawing.
    """

    low: float
    mean: float
    high: float
    cut_low: bool
    cut_high: bool
    is_shown: bool


@dataclass(frozen=True)
class PageCell:
    """A cell: its text, `small` text after it, a link, and the value that it is sorted by.

    `strong` text is bold.  `style` is the name of a class of the style sheet, `title` the text
    that the pointer shows.  `span` is an interval that is drawn in the cell.
    """

    text: str = MISSING
    small: str = ""
    order: float | str | None = None
    href: str = ""
    strong: bool = False
    style: str = ""
    title: str = ""
    span: Span | None = None

    @property
    def sorted_by(self) -> str:
        """The value that it is sorted by, as an attribute: numbers with all digits."""
        value = self.text if self.order is None else self.order
        return f"{value:.10g}" if isinstance(value, int | float) else value


def spec_cell(spec: str) -> PageCell:
    """Return a spec with its parameters as small text, so that models are filtered by name."""
    name, bracket, inside = spec.partition("(")
    return PageCell(name or MISSING, inside.removesuffix(")").replace(",", ", ") if bracket else "")


@dataclass(frozen=True)
class DataTable:
    """A table of a page; `name` is the id of its element, also used in the address and in files.

    Each of `rows` has a cell for each of `columns`.  The cells of the column `head` name their
    rows.  `export` is the place of a script with the rows for download.
    """

    name: str
    caption: str
    columns: Sequence[PageColumn]
    rows: Sequence[Sequence[PageCell]]
    head: str
    export: str = ""

    def choices(self, column: PageColumn) -> list[str]:
        """Return the texts of a column, each once."""
        place = list(self.columns).index(column)
        return sorted({row[place].text for row in self.rows})


@dataclass(frozen=True)
class Fact:
    """An entry of a list: a name and its text; `code` marks text for a machine."""

    name: str
    text: str
    code: bool = False
    href: str = ""
    more: Sequence[str] = field(default=())
