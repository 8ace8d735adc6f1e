"""The best weights of a run so far, and the previous best, each with its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from satbench.core.digests import digest_file
from satbench.model_zoo.card import Card
from satbench.model_zoo.weights import save_weights

BEST, BEST_BEFORE = "best.safetensors", "best.before.safetensors"

Best = dict[str, Any]
"""`epoch`, and `digest`, the SHA-256 of the file (empty for a run of an older satbench)."""


def keep_best(
    model: nn.Module, card: Card | None, folder: Path, epoch: int, kept: tuple[Best, ...]
) -> tuple[Best, ...]:
    """Save the weights of an epoch as the best, with their card; return the kept ones, best first.

    The best weights so far become the previous ones, if they are what was written.  After a kill
    between these weights and the checkpoint that names them, they already are.  A user's own
    network has no card.
    """
    path, before = folder / BEST, folder / BEST_BEFORE
    older = next(((best, file) for best in kept if (file := find_best(folder, best))), None)
    if older and older[1] == path:
        path.replace(before)
    save_weights(model, path, card)
    return ({"epoch": epoch, "digest": digest_file(path)}, *([older[0]] if older else []))


def find_best(folder: Path, best: Best) -> Path | None:
    """Return the file with exactly these weights; None if it no longer exists."""
    for path in (folder / BEST, folder / BEST_BEFORE):
        if path.exists() and best["digest"] in ("", digest_file(path)):
            return path
    return None
