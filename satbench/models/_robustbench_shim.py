"""The import of RobustBench 1.1.1, whose wheel needs two modules that a fresh install lacks.

`robustbench/__init__.py` imports its data loaders, which need `pkg_resources` (removed in
setuptools 82), and its `eval`, which needs a module `autoattack` that is not on PyPI.  Building and
loading models needs neither.  Only during the import of RobustBench, small stand-ins replace the
modules that are not installed.  Afterwards `import robustbench` works everywhere in the process.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from satbench.core.errors import SatbenchError

VERSION = "1.1.1"


def check_version() -> None:
    """Raise SatbenchError unless `import robustbench` imports the files of RobustBench 1.1.1.

    torchattacks brings an old copy under the same name, which may come first on the path or
    overwrite its files.  Imports nothing.
    """
    spec = find_spec("robustbench")
    origin = Path(spec.origin).resolve() if spec and spec.origin else None
    remedy = f"pip install --force-reinstall --no-deps robustbench=={VERSION}"
    try:
        installed = distribution("robustbench")
    except PackageNotFoundError:
        raise SatbenchError(
            f"the package robustbench in {origin} is not RobustBench {VERSION} but a copy from "
            f"another package (torchattacks ships an old one): {remedy}, in an environment "
            "without that package"
        ) from None
    if installed.version != VERSION:
        raise SatbenchError(
            f"expected RobustBench {VERSION}, got {installed.version}: "
            "pip install 'satbench[robustbench]'"
        )
    if foreign := _foreign_file(installed, origin):
        raise SatbenchError(
            f"{foreign} is not a file of the installed RobustBench {VERSION}: another package "
            f"has overwritten it (torchattacks ships an old copy); {remedy}"
        )


def import_robustbench() -> ModuleType:
    """Import RobustBench and return it, with `robustbench.utils` and its model zoo loaded.

    Raises SatbenchError if it is not RobustBench 1.1.1, or if the import fails.
    """
    check_version()
    with stand_ins(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings of RobustBench and timm
        try:
            package = importlib.import_module("robustbench")
            importlib.import_module("robustbench.utils")
        except Exception as error:
            raise SatbenchError(
                f"robustbench is installed but cannot be imported ({type(error).__name__}: "
                f"{error}): pip install 'satbench[robustbench]' installs the versions that it needs"
            ) from error
    return package


def _foreign_file(installed: Distribution, origin: Path | None) -> Path | None:
    """Return a file of the package that differs from the distribution's list of files."""
    for file in installed.files or ():
        if file.suffix != ".py" or file.parts[0] != "robustbench":
            continue
        path = Path(str(file.locate()))
        if file.name == "__init__.py" and len(file.parts) == 2 and path.resolve() != origin:
            return origin
        if not path.is_file():
            return path
        if file.hash is None:
            continue
        digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
            return path
    return None


@contextmanager
def stand_ins() -> Iterator[None]:
    """Put stand-ins into `sys.modules` for the modules that are not installed."""
    made = [
        module
        for top, make in (("pkg_resources", _pkg_resources), ("autoattack", _autoattack))
        if top not in sys.modules and find_spec(top) is None
        for module in make()
    ]
    for module in made:
        sys.modules[module.__name__] = module
    try:
        yield
    finally:
        for module in made:
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]


def _pkg_resources() -> list[ModuleType]:
    def resource_filename(module: str, name: str) -> str:
        """Return the path of a file next to the module of that name."""
        return str(Path(str(sys.modules[module].__file__)).parent / name)

    stand_in = ModuleType("pkg_resources")
    vars(stand_in)["resource_filename"] = resource_filename
    return [stand_in]


def _autoattack() -> list[ModuleType]:
    package, state = ModuleType("autoattack"), ModuleType("autoattack.state")
    package.__path__ = []  # makes it a package, so that it can have submodules
    vars(package).update(AutoAttack=_NotHere, state=state)
    vars(state).update(EvaluationState=_NotHere)
    return [package, state]


class _NotHere:
    """The stand-in for the class that RobustBench's benchmark() calls."""

    def __init__(self, *_: object, **__: object) -> None:
        raise SatbenchError(
            "RobustBench's benchmark() needs the module autoattack, which is not installed; "
            "`satbench eval --model robustbench:… --attack autoattack` runs the same attack"
        )
