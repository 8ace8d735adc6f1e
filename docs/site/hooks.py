"""Hooks of the documentation site: pages from outside docs/, generated pages, and links.

The command line and the public names of Python are read from the package when the site is built,
so these pages cannot be out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import cli_reference  # noqa: E402
import python_reference  # noqa: E402

_OUTSIDE = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "SUBMITTING.md",
    "attacks/README.md",
    "model_zoo/README.md",
    "leaderboard/README.md",
    "leaderboard/*/LEADERBOARD.md",
)
"""Pages of the site that lie outside docs/; their place in the site is their place here."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^( *```.*?^ *```)", re.DOTALL | re.MULTILINE)


def on_config(config: Any) -> Any:
    """Fill the folders of the navigation with their pages."""
    config.nav = _with_folders(config.nav)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/ and those that are generated."""
    for pattern in _OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    generated = {
        "reference/cli.md": cli_reference.page(),
        "reference/python.md": python_reference.page(),
        "decisions/index.md": _decisions(),
    }
    # `make docs` writes the boards in the place of this page, with `satbench leaderboard page`.
    generated["boards/index.html"] = "<!doctype html><title>Boards</title><p>make docs</p>\n"
    for uri, text in generated.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    uri = page.file.src_uri
    here = uri if _is_outside(uri) else f"docs/{uri}"

    def turned(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or "://" in target or target.startswith("mailto:"):
            return match[0]
        place = normpath(str(PurePosixPath(here).parent / path))
        if place.startswith("docs/") or _is_outside(place):
            wanted = place.removeprefix("docs/")
            to = relpath(wanted, str(PurePosixPath(uri).parent))
            return f"{picture}[{text}]({to}{'#' * bool(anchor)}{anchor})"
        # A file of the repository that is no page: its name, without a link.
        return text if (ROOT / place).exists() else match[0]

    parts = _FENCE.split(markdown)
    return "".join(part if k % 2 else _LINK.sub(turned, part) for k, part in enumerate(parts))


def _is_outside(uri: str) -> bool:
    return any(PurePosixPath(uri).match(pattern) for pattern in _OUTSIDE) and (ROOT / uri).is_file()


def _with_folders(nav: list[Any]) -> list[Any]:
    filled: list[Any] = []
    for entry in nav:
        if isinstance(entry, str):
            filled.append(entry)
            continue
        title, target = next(iter(entry.items()))
        if isinstance(target, list):
            filled.append({title: _with_folders(target)})
        elif target.endswith("/"):
            folder = ROOT / "docs" / target
            first = "README.md" if (folder / "README.md").is_file() else "index.md"
            names = sorted(path.name for path in folder.glob("*.md"))
            pages = [target + name for name in names if name != first]
            filled.append({title: [target + first, *pages]})
        else:
            filled.append(entry)
    return filled


def _decisions() -> str:
    lines = ["# Decisions", "", "Choices between real alternatives, one page each.", ""]
    for path in sorted((ROOT / "docs/decisions").glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title.replace('. ', ': ', 1)}]({path.name})")
    return "\n".join(lines) + "\n"
