"""The list of suites that ship, as the README of their folder."""

from __future__ import annotations

from pathlib import Path

from satbench.attacks.registry import attack_spec
from satbench.attacks.suites.suite_file import digest_of, read_suite, shipped_suites
from satbench.core.content import content_folder
from satbench.core.templates import fill


def catalogue_file() -> tuple[Path, str]:
    """Return where the list of suites is in a checkout, and what it should say."""
    suites = [
        {
            "name": name,
            "suite": (suite := read_suite(path)),
            "spec": attack_spec(name),
            "digest": digest_of(suite)[:12],
        }
        for name, path in shipped_suites().items()
    ]
    return content_folder("attacks") / "README.md", fill("suites.md", {"suites": suites})
