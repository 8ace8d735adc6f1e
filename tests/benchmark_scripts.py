"""Import the scripts of benchmarks/ for a while, some of which have the names of packages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

Load = Callable[[str], ModuleType]
FOLDER = Path(__file__).parents[1] / "benchmarks"


@contextmanager
def scripts() -> Iterator[Load]:
    """Yield a function that imports a script by its name; afterwards no script is imported."""
    paths, others = list(sys.path), _taken()
    sys.path.insert(0, str(FOLDER))
    try:
        yield import_module
    finally:
        sys.path[:] = paths
        _taken()
        sys.modules.update(others)


def _taken() -> dict[str, ModuleType]:
    """Remove all modules that are named as a script, with what is in them; return them."""
    # The package coverage stays: it may be measuring the tests.
    names = {path.stem for path in FOLDER.glob("*.py")} - {"coverage"}
    found = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in found}
