"""satbench: how robust is an image classifier, and does a smooth activation make it more so?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from satbench.core.errors import SatbenchError

if TYPE_CHECKING:
    from satbench.api import evaluate
    from satbench.model_zoo.swap import swap_activation

__version__ = "0.1.0"
__all__ = ["SatbenchError", "__version__", "evaluate", "swap_activation"]


def __getattr__(name: str) -> object:
    """Import torch only when something of it is asked for: `import satbench` is instant."""
    if name == "evaluate":
        from satbench.api import evaluate

        return evaluate
    if name == "swap_activation":
        from satbench.model_zoo.swap import swap_activation

        return swap_activation
    raise AttributeError(f"module 'satbench' has no attribute {name!r}")
