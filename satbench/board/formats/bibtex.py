"""The sources of a board's rows as BibTeX: attacks, networks, data sets, recipes, satbench."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

from satbench.attacks.registry import ATTACKS
from satbench.attacks.suites.suite_file import shipped_suites, suite_of_version
from satbench.board.board import Board
from satbench.board.imported.rows import Imported
from satbench.board.rows import Row
from satbench.core.content import content_folder
from satbench.core.registry import Registry
from satbench.core.schema import read_text
from satbench.core.specs import split_spec
from satbench.core.text.latex_text import bibtex
from satbench.data import DATASETS
from satbench.networks.registry import ACTIVATIONS, ARCHITECTURES
from satbench.recipes import recipe_names, recipe_sources

EPRINT = re.compile(r"arXiv:(\d{4}\.\d{5})")

METHODS = {
    "mi": "1710.06081",
    "di": "1803.06978",
    "ti": "1904.02884",
    "ni": "1908.06281",
    "si": "1908.06281",
    "vmi": "2103.15571",
}
"""The papers of the methods that the attack `transfer` combines (`satbench.attacks.transfer`)."""

KEYS = {"Krizhevsky, 2009": "krizhevsky2009cifar"}
"""Entries of sources that are not on arXiv."""

SATBENCH = """\
@software{satbench,
  author = {{The satbench founders}},
  title = {satbench: a benchmark of adversarial robustness and Smooth Adversarial Training},
  year = {2026}
}
"""

_SPLIT = re.compile(r"[()+,=]")


def render_bibtex(board: Board) -> str:
    """Return the entries for the sources of the board's rows, sorted by key, and for satbench."""
    rows = [row for benchmark in board.benchmarks for row in benchmark.rows]
    datasets = [benchmark.dataset.name for benchmark in board.benchmarks]
    found = {key for row in rows for key in sources_of(row)}
    found |= {key for name in datasets for key in _of(DATASETS, name)}
    return _written(found)


def sources_of(row: Row) -> set[str]:
    """Return the sources of one row: arXiv numbers, and keys of sources that are not on arXiv."""
    found = {key for spec in row.attacks for key in attack_sources(spec)}
    found |= _of(ARCHITECTURES, row.model.architecture) | _of(ACTIVATIONS, row.model.activation)
    if row.training.attack:
        found |= attack_sources(row.training.attack)
    if row.training.recipe in recipe_names():
        found |= set(recipe_sources(row.training.recipe))
    return found


def attack_sources(spec: str) -> set[str]:
    """Return the sources of an attack: its own, and those of its parts and methods.

    >>> sorted(attack_sources("autoattack(version=standard,block=250)"))
    ['1907.02044', '1912.00049', '2003.01690', '2103.01208']
    """
    name, arguments = split_spec(spec)
    found = _of(ATTACKS, spec)
    if name in shipped_suites():
        for part in suite_of_version(shipped_suites()[name], arguments.get("version")).parts:
            found |= attack_sources(part.attack)
    if name == "transfer":
        found |= {METHODS[word] for word in _SPLIT.split(spec) if word in METHODS}
    return found


def imported_bibtex(imported: Imported) -> str:
    """Return an entry for each paper of imported rows, and for the publication itself."""
    keys: list[str] = EPRINT.findall(imported.source)
    entries = {_entry_key(row.link, row.paper): row for row in imported.rows if row.paper}
    lines = [
        f"@misc{{{key},\n"
        f"  author = {{{bibtex(' and '.join(row.authors.split(', ')))}}},\n"
        f"  title = {{{bibtex(row.paper)}}},\n"
        f"  note = {{{bibtex(row.venue)}}},\n"
        f"  url = {{{_url(row.link)}}}\n}}\n"
        for key, row in sorted(entries.items())
    ]
    return _written(keys) + "".join(f"\n{line}" for line in lines)


@cache
def references() -> dict[str, tuple[str, str]]:
    """Return the entries of leaderboard/references.bib: arXiv number or key -> (key, text)."""
    path = content_folder("leaderboard") / "references.bib"
    found = {}
    for text in read_text(path, "list of references").split("\n@")[1:]:
        text = "@" + text.strip() + "\n"
        key = text.partition("{")[2].partition(",")[0]
        eprint = re.search(r"eprint = \{([\d.]+)\}", text)
        found[eprint[1] if eprint else key] = (key, text)
    return found


def _of(registry: Registry, spec: str) -> set[str]:
    name = re.split(r"[(@:]", spec, maxsplit=1)[0]
    if name not in registry:
        return set()
    source = registry[name].source
    return {*EPRINT.findall(source), *(key for text, key in KEYS.items() if text in source)}


def _written(found: Iterable[str]) -> str:
    known = references()
    entries: Sequence[tuple[str, str]] = sorted(known[one] for one in set(found) if one in known)
    return "\n".join([SATBENCH, *(text for _, text in entries)])


def _entry_key(link: str, paper: str) -> str:
    tail = re.sub(r"[^A-Za-z0-9.]+", "-", link.rstrip("/").rpartition("/")[2]).strip("-")
    return f"imported-{tail or re.sub(r'[^A-Za-z0-9]+', '-', paper)[:40]}"


def _url(link: str) -> str:
    return link if re.fullmatch(r"https?://[\w./?=%&+#:-]+", link, re.ASCII) else bibtex(link)
