"""The generated files in the folder of suites: their list, and the defaults of attacks."""

from __future__ import annotations

import json
from pathlib import Path

from satbench.attacks.defaults import FILE
from satbench.attacks.registry import ATTACKS, attack_spec, parse_attack
from satbench.attacks.suites.suite_file import digest_of, older_versions, read_suite, shipped_suites
from satbench.core.content import content_folder
from satbench.core.specs import spec_of
from satbench.core.templates import fill


def catalogue_files() -> dict[Path, str]:
    """Return the generated files of a checkout with their contents."""
    page, text = _list_of_suites()
    names = [entry.name for entry in ATTACKS if not entry.plugin]
    defaults = {name: spec_of(name, parse_attack(name)) for name in names}
    return {page: text, page.with_name(FILE): json.dumps(defaults, indent=1) + "\n"}


def _list_of_suites() -> tuple[Path, str]:
    """Return the path and the text of the list of suites in a checkout."""
    suites = [
        {
            "name": name,
            "suite": (suite := read_suite(path)),
            "spec": attack_spec(name),
            "digest": digest_of(suite)[:12],
            "older": {
                version: (suite.older[version], digest_of(old)[:12])
                for version, old in older_versions(path).items()
            },
        }
        for name, path in shipped_suites().items()
    ]
    return content_folder("attacks") / "README.md", fill("suites.md", {"suites": suites})
