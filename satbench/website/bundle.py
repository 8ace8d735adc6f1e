"""The files that every page of the site uses: its style, its script, and DataTables.

DataTables (MIT licence) comes as a module with the package itables, which is an extra.  Browsers
do not load a module from disk, so it is written as a plain script.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from satbench.core.errors import SatbenchError
from satbench.core.templates import fill

TABLES, SCRIPT, STYLE = "assets/datatables.js", "assets/site.js", "assets/site.css"

_EXPORT = re.compile(r"\bexport\{([\w$]+ as [\w$]+(?:,[\w$]+ as [\w$]+)*)\};?$", re.M)


def assets() -> dict[str, str]:
    """Return the files by their place in the site.  Raises SatbenchError if itables is missing."""
    return {
        TABLES: as_script(_datatables()),
        SCRIPT: fill("website/site.js", {}),
        STYLE: fill("website/site.css", {}),
    }


def as_script(module: str) -> str:
    """Turn a module that imports nothing into a plain script that sets `window.DataTable`.

    Raises SatbenchError unless the module ends in one list of exports that has a default.
    """
    found = _EXPORT.findall(module)
    names = dict(reversed(pair.split(" as ")) for pair in found[0].split(",")) if found else {}
    if len(found) != 1 or "default" not in names:
        raise SatbenchError(
            "expected DataTables as one module in the package itables, got another layout; "
            "install the release that satbench was tested with: pip install itables==2.9.1"
        )
    inner = _EXPORT.sub(lambda _: f"window.DataTable={names['default']};", module)
    return f"(function(){{\n{inner}\n}})();\n"


def _datatables() -> str:
    found = find_spec("itables")
    if found is None or found.origin is None:
        raise SatbenchError(
            "the page needs itables, which brings DataTables and is not installed: "
            "pip install 'satbench[page]'"
        )
    path = Path(found.origin).parent / "html" / "dt_bundle.js"
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SatbenchError(f"expected DataTables at {path}: {error.strerror}") from None
