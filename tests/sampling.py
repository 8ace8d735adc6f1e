"""The choice of the cases of a parametrised test that run every day.

If a test has more than `EVERY_DAY` cases, that many run with the everyday tests.  All of them run
with the slow tests (`make test-all`), and if the test's file is named (`pytest tests/….py`).  The
choice depends only on the names, and covers the values of each parameter.

`@pytest.mark.sampled(n)` sets another number; `@pytest.mark.sampled(None)` runs all, for tests in
which each case shows a different fault.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

EVERY_DAY = 2


def leave_out_what_is_not_drawn(items: Sequence[pytest.Item], named: Sequence[str]) -> None:
    """Mark the cases of tests that are not drawn as slow; `named` is what the command names."""
    tests: defaultdict[str, list[pytest.Function]] = defaultdict(list)
    whole = {Path(one.partition("::")[0]).resolve() for one in named}
    for item in items:
        if item.path in whole:
            continue
        if hasattr(item, "callspec") and not item.get_closest_marker("slow"):
            assert isinstance(item, pytest.Function)
            tests[item.nodeid.partition("[")[0]].append(item)
    for cases in tests.values():
        marker = cases[0].get_closest_marker("sampled")
        number = marker.args[0] if marker else EVERY_DAY
        if number is None or len(cases) <= number:
            continue
        kept = drawn({case.nodeid: _features(case) for case in cases}, number)
        for case in cases:
            if case.nodeid not in kept:
                case.add_marker(pytest.mark.slow)


def drawn(features: Mapping[str, Sequence[Hashable]], number: int) -> set[str]:
    """Draw `number` names so that each feature occurs, and about as often as others of its kind.

    Names are tried in the order of their hashes.
    """
    left = sorted(features, key=lambda name: hashlib.sha256(name.encode()).digest())
    met: Counter[Hashable] = Counter()
    kept: set[str] = set()
    while left and len(kept) < number:
        best = max(left, key=lambda name: sum(0.25 ** met[one] for one in features[name]))
        left.remove(best)
        kept.add(best)
        met.update(features[best])
    return kept


def _features(case: pytest.Function) -> list[Hashable]:
    """Return the values of each parameter, the words of a text, and the fields of a dataclass."""
    found: list[Hashable] = []
    for name, value in case.callspec.params.items():
        found.append((name, case.callspec.indices[name]))
        if isinstance(value, str):
            found += [(name, word) for word in set(re.findall(r"\w+", value))]
        if is_dataclass(value) and not isinstance(value, type):
            found += [(name, one.name, repr(getattr(value, one.name))) for one in fields(value)]
    return found
