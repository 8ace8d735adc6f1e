"""What `satbench eval` was asked for, as one frozen value, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from satbench.attacks import check_attack_name
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import check_name
from satbench.models import ModelRequest, request_model

DEFAULT_EXAMPLES = 1000
DEFAULT_ATTACKS = ("pgd-50", "autoattack")


@dataclass(frozen=True)
class EvalConfig:
    """One model × dataset × threat model × suite × seed.

    `n_examples` is None for the first 1,000 images, or all where a split has fewer.
    """

    model: ModelRequest
    dataset: str
    threat: Threat
    attacks: tuple[str, ...]
    n_examples: int | None
    seed: int
    batch_size: int
    device: str
    data_dir: Path | None
    out: Path


def eval_config(
    model: str,
    *,
    architecture: str | None = None,
    activation: str | None = None,
    dataset: str | None = None,
    norm: str | None = None,
    eps: str | None = None,
    attacks: Sequence[str] = (),
    n_examples: int | None = None,
    seed: int = 0,
    batch_size: int = 250,
    device: str = "auto",
    data_dir: Path | None = None,
    out: Path = Path("results"),
) -> EvalConfig:
    """Check what was asked for and fill in what was not.

    A model with a card defaults to the data set and the threat model it was trained for; any
    other needs both.  Raises SatbenchError: unknown names (with the nearest), missing files,
    numbers out of range, and what is missing.
    """
    request = request_model(model, architecture, activation)
    training = request.card.training if request.card else None
    dataset = dataset or (training.dataset if training else None)
    if dataset is None:
        raise SatbenchError(f"say what to evaluate {model} on, such as --dataset cifar10")
    check_name(dataset)
    for attack in attacks:
        check_attack_name(attack)
    if batch_size < 1:
        raise SatbenchError(f"expected a batch size of 1 or more, got {batch_size}")
    if n_examples is not None and n_examples < 1:
        raise SatbenchError(f"expected 1 example or more, got {n_examples}")
    return EvalConfig(
        model=request,
        dataset=dataset,
        threat=_threat(model, norm, eps, training.threat if training else None),
        attacks=tuple(attacks) or DEFAULT_ATTACKS,
        n_examples=n_examples,
        seed=seed,
        batch_size=batch_size,
        device=device,
        data_dir=data_dir,
        out=out,
    )


def _threat(model: str, norm: str | None, eps: str | None, trained: str | None) -> Threat:
    default = Threat.parse(trained) if trained else None
    if eps is None and (default is None or (norm or default.norm).lower() != default.norm):
        raise SatbenchError(f"say how far the adversary of {model} may go, such as --eps 8/255")
    norm = norm or (default.norm if default else "linf")
    return default if eps is None and default else Threat.of(norm, str(eps))
