"""The reference of the Python interface: the public names, and what they return."""

from __future__ import annotations

import satbench
from satbench.certification.run import Certified
from satbench.engine.contract import Attack
from satbench.evaluation.python.result import Result
from satbench.training.api import Callback, TrainedModel

_HEAD = """# Python

`import satbench` is instant; torch is imported when something of it is first used. These are all
public names. The examples are run by the tests.
"""
_TYPES = (Result, Certified, TrainedModel, Callback, Attack)


def page() -> str:
    """Return the page, with an entry of mkdocstrings for each public name and type."""
    names = [name for name in satbench.__all__ if not name.startswith("__")]
    found = {f"satbench.{name}": getattr(satbench, name) for name in names}
    parts = [_HEAD, *(_entry(title, value) for title, value in found.items())]
    parts.append("## Types\n")
    parts += [_entry(kind.__name__, kind, 3) for kind in _TYPES if kind not in found.values()]
    return "\n".join(parts)


def _entry(title: str, value: object, level: int = 2) -> str:
    home = f"{value.__module__}.{value.__qualname__}"  # type: ignore[attr-defined]
    options = f'    options: {{heading: "{title}", heading_level: {level}, toc_label: "{title}"}}'
    return f"::: {home}\n{options}\n"
