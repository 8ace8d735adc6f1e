"""satbench: how robust is an image classifier, and does a smooth activation make it more so?"""

from __future__ import annotations

import random
from importlib import import_module
from typing import TYPE_CHECKING

from satbench.core.errors import SatbenchError

if TYPE_CHECKING:
    from satbench.board.comparison import compare
    from satbench.certification.api import certify
    from satbench.evaluation.api import evaluate
    from satbench.evaluation.python.attacking import attack
    from satbench.evaluation.python.loading import load_dataset, load_model
    from satbench.networks.swap import swap_activation
    from satbench.proofs.api import challenge, load_record, merge, verify
    from satbench.training.api import train

__version__ = "0.1.0"
__all__ = [
    "SatbenchError",
    "__version__",
    "attack",
    "certify",
    "challenge",
    "compare",
    "evaluate",
    "load_dataset",
    "load_model",
    "load_record",
    "merge",
    "swap_activation",
    "train",
    "verify",
]

_HOMES = {
    "attack": "satbench.evaluation.python.attacking",
    "certify": "satbench.certification.api",
    "challenge": "satbench.proofs.api",
    "compare": "satbench.board.comparison",
    "evaluate": "satbench.evaluation.api",
    "load_dataset": "satbench.evaluation.python.loading",
    "load_model": "satbench.evaluation.python.loading",
    "load_record": "satbench.proofs.api",
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
    return sorted(__all__)
