"""satbench: how robust is an image classifier, and does a smooth activation make it more so?"""

from __future__ import annotations

import random
from importlib import import_module
from typing import TYPE_CHECKING

from satbench.core.errors import SatbenchError

if TYPE_CHECKING:
    from satbench.evaluation.api import evaluate
    from satbench.networks.swap import swap_activation
    from satbench.proofs.api import challenge, merge, verify
    from satbench.training.api import train

__version__ = "0.1.0"
__all__ = [
    "SatbenchError",
    "__version__",
    "challenge",
    "evaluate",
    "merge",
    "swap_activation",
    "train",
    "verify",
]

_HOMES = {
    "challenge": "satbench.proofs.api",
    "evaluate": "satbench.evaluation.api",
    "merge": "satbench.proofs.api",
    "swap_activation": "satbench.networks.swap",
    "train": "satbench.training.api",
    "verify": "satbench.proofs.api",
}


def __getattr__(name: str) -> object:
    """Import torch only when something of it is asked for: `import satbench` is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'satbench' has no attribute {name!r}")
    drawn = random.getstate()  # rich, imported on the way, draws a number
    found: object = getattr(import_module(_HOMES[name]), name)
    random.setstate(drawn)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
