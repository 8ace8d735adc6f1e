"""A figure in memory, which a notebook shows or `save` writes.  Same data, same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path
from satbench.core.text.characters import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")

_STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a $ in a name is only a $
    "svg.hashsalt": "satbench",  # otherwise the ids in an SVG are random
}
# With dates and versions, the same data would give other bytes.
_METADATA: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".png": {"Software": None}}


def check_can_draw() -> None:
    """Raise SatbenchError, which says what to install, if matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise SatbenchError(
            "figures need matplotlib, which is not installed: pip install 'satbench[plots]'"
        )


def check_format(path: Path) -> None:
    """Raise SatbenchError unless the path's suffix is a format of figures."""
    if path.suffix not in FORMATS:
        raise SatbenchError(f"expected a figure ending in {' or '.join(FORMATS)}, got {path.name}")


class DrawnFigure:
    """A drawn figure.  A notebook shows it, and `save` writes it to a file.

    `figure` is matplotlib's own object.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def __repr__(self) -> str:
        width, height = self.figure.get_size_inches()
        return f"<DrawnFigure of {width:g} × {height:g} inches: save('NAME.png') or NAME.svg>"

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the figure atomically, and return its path.

        The suffix, .png or .svg, selects the format.  Raises SatbenchError for another one.
        """
        path = Path(path)
        check_format(path)
        with _styled(), atomic_path(path) as temporary:
            _make_harmless(self.figure)
            self.figure.savefig(temporary, format=path.suffix[1:], metadata=_METADATA[path.suffix])
        return path

    def _repr_png_(self) -> bytes:
        held = BytesIO()
        with _styled():
            _make_harmless(self.figure)
            self.figure.savefig(held, format="png", metadata=_METADATA[".png"])
        return held.getvalue()


def _make_harmless(figure: Figure) -> None:
    """Show control characters and marks of direction in a figure's texts; XML allows none."""
    from matplotlib.text import Text

    for one in figure.findobj(Text):
        if (
            isinstance(one, Text)
            and (shown := visible(one.get_text(), keep="\n")) != one.get_text()
        ):
            one.set_text(shown)


@contextmanager
def drawing(inches: tuple[float, float]) -> Iterator[DrawnFigure]:
    """Yield an empty figure to draw on, in the style of all figures.

    Raises SatbenchError if matplotlib is not installed.
    """
    check_can_draw()
    from matplotlib.figure import Figure

    with _styled():
        # pyplot is not used: it would choose a screen and keep every figure.
        yield DrawnFigure(Figure(figsize=inches, dpi=150, layout="constrained"))


@contextmanager
def _styled() -> Iterator[None]:
    from matplotlib import style

    with style.context(["default", _STYLE]):  # independent of the user's settings
        yield
