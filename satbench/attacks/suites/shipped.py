"""The shipped suites as attacks: each name of `attacks/*.toml` is an attribute here."""

from __future__ import annotations

from functools import cache

from satbench.attacks.suites.suite_file import (
    older_versions,
    read_suite,
    shipped_suites,
    suite_class,
)


def __getattr__(name: str) -> type:
    """Return the attack of a shipped suite.  Raises AttributeError for any other name."""
    if name not in shipped_suites():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _made(name)


@cache
def _made(name: str) -> type:
    path = shipped_suites()[name]
    return suite_class(name, read_suite(path), older_versions(path))
