"""Import RobustBench 1.1.1, whose wheel asks for two modules that a fresh install lacks.

`robustbench/__init__.py` imports its data loaders, which want `pkg_resources` (gone from
setuptools 82), and its `eval`, which wants a module `autoattack` that no package on PyPI has.
Nothing that builds or loads a model needs either.  While RobustBench is imported, and no longer,
small stand-ins are in their place; where the real ones are installed, those are taken.
Afterwards `import robustbench` works everywhere in the process.
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
    """Raise SatbenchError unless `import robustbench` gives the files of RobustBench 1.1.1.

    torchattacks brings an old copy under the same name: before it on the path, or written over
    its files by pip.  Imports nothing.
    """
    spec = find_spec("robustbench")
    origin = Path(spec.origin).resolve() if spec and spec.origin else None
    remedy = f"pip install --force-reinstall --no-deps robustbench=={VERSION}"
    try:
        installed = distribution("robustbench")
    except PackageNotFoundError:
        raise SatbenchError(
            f"the package robustbench in {origin} is not RobustBench {VERSION} but another "
            f"package's copy, as torchattacks ships an old one: {remedy}, in an environment "
            "without that package"
        ) from None
    if installed.version != VERSION:
        raise SatbenchError(
            f"expected RobustBench {VERSION}, got {installed.version}: "
            "pip install 'satbench[robustbench]'"
        )
    if foreign := _foreign_file(installed, origin):
        raise SatbenchError(
            f"{foreign} is not a file of RobustBench {VERSION}, which is installed: another "
            f"package has put its copy in the way, as torchattacks does with an old one; {remedy}"
        )


def import_robustbench() -> ModuleType:
    """Import RobustBench and return it, with `robustbench.utils` and its model zoo loaded.

    Raises SatbenchError where it is not RobustBench 1.1.1, or cannot be imported even so.
    """
    check_version()
    with stand_ins(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what RobustBench and timm call in old ways is theirs
        try:
            package = importlib.import_module("robustbench")
            importlib.import_module("robustbench.utils")
        except Exception as error:
            raise SatbenchError(
                f"robustbench is installed but cannot be imported ({type(error).__name__}: "
                f"{error}): pip install 'satbench[robustbench]' brings the versions it wants"
            ) from error
    return package


def _foreign_file(installed: Distribution, origin: Path | None) -> Path | None:
    """Return a file of the package that is not as the distribution's list of files has it."""
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
    """Hold stand-ins in `sys.modules` for those modules that are not installed."""
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
        """Return the path of a file beside the module of that name."""
        return str(Path(str(sys.modules[module].__file__)).parent / name)

    stand_in = ModuleType("pkg_resources")
    vars(stand_in)["resource_filename"] = resource_filename
    return [stand_in]


def _autoattack() -> list[ModuleType]:
    package, state = ModuleType("autoattack"), ModuleType("autoattack.state")
    package.__path__ = []  # which makes it a package, so that it may have a part
    vars(package).update(AutoAttack=_NotHere, state=state)
    vars(state).update(EvaluationState=_NotHere)
    return [package, state]


class _NotHere:
    """What RobustBench's own benchmark() would call."""

    def __init__(self, *_: object, **__: object) -> None:
        raise SatbenchError(
            "RobustBench's benchmark() needs the module autoattack, which is not installed; "
            "`satbench eval --model robustbench:… --attack autoattack` runs the same attack"
        )
