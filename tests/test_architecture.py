"""The house: which room may open which door.  Read from the sources, no import needed."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "satbench").rglob("*.py"))
}
ORDER = (  # a room imports only rooms that stand before it, lazily or not
    "core",
    "records",
    "figures",
    "calling",
    "engine",
    "diagnosis",
    "networks",
    "model_zoo",
    "attacks",
    "data",
    "recipes",
    "board",
    "preflight",
    "models",
    "evaluation",
    "curve",
    "transfer",
    "certification",
    "proofs",
    "submissions",
    "training",
    "studies",
    "website",
    "cli",
)
LIGHT = {"core", "records", "figures", "board"}  # rooms without torch
ENTRANCES = {"satbench", "satbench.__main__"}  # a name of the interface is looked up in any room


def room_of(module: str) -> str:
    """Return `core`, `attacks`, …; an entrance is its own room."""
    return module if module in ENTRANCES else module.split(".")[1]


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports_of(module: str, *, when_imported: bool = False) -> set[str]:
    """Return the full names a module imports; `when_imported` leaves out those made later.

    `from a.b import c` is a.b.c where that is a module, else a.b.
    """
    found: set[str] = set()
    nodes = walk(tree_of(module), True) if when_imported else nodes_of(module)
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found


@cache
def nodes_of(module: str) -> tuple[ast.AST, ...]:
    return tuple(walk(tree_of(module), when_imported=False))


def walk(tree: ast.AST, when_imported: bool) -> list[ast.AST]:
    """Return all nodes; `when_imported` leaves out functions and `if TYPE_CHECKING:`."""
    nodes = [tree]
    for node in nodes:
        for child in ast.iter_child_nodes(node):
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            typing = when_imported and isinstance(child, ast.If)
            typing = typing and "TYPE_CHECKING" in ast.unparse(child.test)
            if not (when_imported and (later or typing)):
                nodes.append(child)
    return nodes


def test_all_rooms_are_checked() -> None:
    assert {room_of(module) for module in MODULES} == {*ORDER, *ENTRANCES}
    assert len(MODULES) > 200


def test_the_page_of_the_architecture_draws_this_order() -> None:
    drawing = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    rooms = [
        word for line in drawing.split("\n") for word in line.split()[1:] if word.isidentifier()
    ]

    assert rooms[::-1] == list(ORDER)


def imports_between_rooms() -> set[tuple[str, str]]:
    return {
        (module, name)
        for module in MODULES
        for name in imports_of(module)
        if name.split(".")[0] == "satbench"
        and module not in ENTRANCES
        and name not in ENTRANCES  # `satbench` itself has the version
        and room_of(name) != room_of(module)
    }


def test_a_module_imports_only_from_the_rooms_below_its_own() -> None:
    offenders = {
        (module, name)
        for module, name in imports_between_rooms()
        if ORDER.index(room_of(name)) > ORDER.index(room_of(module))
    }

    assert offenders == set()


def test_no_module_imports_a_private_module_of_another_room() -> None:
    offenders = {
        (module, name)
        for module, name in imports_between_rooms()
        if any(part.startswith("_") for part in name.split("."))
    }

    assert offenders == set()


def test_no_module_imports_a_private_name_of_another() -> None:
    offenders = {
        (module, f"{node.module}.{alias.name}")
        for module in MODULES
        for node in nodes_of(module)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("satbench")
        for alias in node.names
        if alias.name.startswith("_")
        and f"{node.module}.{alias.name}" not in MODULES
        and alias.name != "__version__"
    }

    assert offenders == set()


def test_a_folder_holds_at_most_18_modules() -> None:
    folders = Counter(path.parent.relative_to(ROOT) for path in MODULES.values())

    assert {str(folder): n for folder, n in folders.items() if n - 1 > 18} == {}


def test_no_module_of_a_light_room_imports_torch() -> None:
    offenders = {
        (module, name)
        for module in MODULES
        for name in imports_of(module)
        if room_of(module) in LIGHT and name.split(".")[0].startswith("torch")
    }

    assert offenders == set()


def test_imports_are_absolute_and_go_through_satbench() -> None:
    relative = {
        (module, ast.unparse(node))
        for module in MODULES
        for node in nodes_of(module)
        if isinstance(node, ast.ImportFrom) and node.level
    }
    content = {"attacks", "model_zoo", "leaderboard", "core", "tests"}
    outside = {
        (module, name)
        for module in MODULES
        for name in imports_of(module)
        if name.split(".")[0] in content
    }

    assert relative | outside == set()


def test_a_module_has_at_most_400_lines() -> None:
    lengths = {
        module: len(path.read_text(encoding="utf-8").splitlines())
        for module, path in MODULES.items()
    }

    assert {module: lines for module, lines in lengths.items() if lines > 400} == {}


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    # In the folder of such a module, every program would import it in the place of the other.
    names = {module.rpartition(".")[2] for module in MODULES if module != "satbench.__main__"}

    assert names & set(sys.stdlib_module_names) == set()


def test_imports_go_in_no_circle() -> None:
    graph = {
        module: {name for name in imports_of(module, when_imported=True) if name in MODULES}
        for module in MODULES
    }
    # A package that names the parts of itself is no circle: the parts do not ask for it.
    order = list(TopologicalSorter(graph).static_order())

    assert set(order) == set(MODULES)


@pytest.mark.parametrize("word", ["utils", "helpers", "common", "misc"])
def test_no_module_is_named_after_nothing(word: str) -> None:
    assert [module for module in MODULES if module.endswith(word)] == []


def exports_of(module: str) -> set[str]:
    return {
        ast.literal_eval(name)
        for node in tree_of(module).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for name in getattr(node.value, "elts", [])
    }


def test_no_package_exports_a_name_that_one_of_its_modules_has() -> None:
    # Importing the module would put it in the place of what is exported.
    assert [
        f"{module}.{name}"
        for module in MODULES
        for name in exports_of(module)
        if f"{module}.{name}" in MODULES
    ] == []


def test_no_room_is_a_top_level_module_after_importing_all() -> None:
    for module in MODULES:
        if not module.endswith("__main__"):
            import_module(module)

    assert {"attacks", "model_zoo", "leaderboard"} & set(sys.modules) == set()


def test_a_class_name_is_defined_once() -> None:
    defined: dict[str, set[str]] = {}
    for module in MODULES:
        for node in nodes_of(module):
            if isinstance(node, ast.ClassDef):
                defined.setdefault(node.name, set()).add(f"{module}:{node.lineno}")

    assert {name: places for name, places in defined.items() if len(places) > 1} == {}


def test_no_two_test_modules_have_one_name() -> None:
    # pytest imports a test module by its file's name only, but in a package.
    found = (ROOT / "tests").rglob("test_*.py")
    names = [path.name for path in found if not (path.parent / "__init__.py").exists()]

    assert sorted(names) == sorted(set(names))
