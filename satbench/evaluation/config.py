"""What `satbench eval` was asked for, as one frozen value, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsFloat

from satbench.attacks import check_attack_name
from satbench.core.errors import SatbenchError
from satbench.core.files import check_folder
from satbench.core.limits import check_timeout
from satbench.core.threat import Threat
from satbench.data import Dataset, check_name, completed, evaluation_set_of, load_dataset
from satbench.evaluation.replacements import parse_bpda
from satbench.models import FileOptions, ModelRequest, request_model

AUTO_BATCH = 0
"""The batch size that stands for one that is to be measured."""

DEFAULT_BATCH = 250
DEFAULT_EXAMPLES = 1000
DEFAULT_ATTACKS = ("pgd-50", "autoattack")


@dataclass(frozen=True)
class EvalConfig:
    """One model × dataset × threat model × suite × seed.

    `n_examples` is None for the first 1,000 images, or all where a split has fewer.  `bpda` names
    layers and what gives each its backward in searches, `LAYER=TARGET`.  With `until`, a share in
    (0, 1], images are gone through in a random order until the 95 % interval is no wider; then
    `n_examples` is None for all.  With `fresh`, a result that is in `out` already is made anew.
    Images that the model was trained on are refused unless `allow_training_data`.  Without
    `diagnose` nobody looks for signs of masked gradients, and the record is flagged.
    A `batch_size` of 0 is one that is to be measured.  With `checkpointing` searches keep less for
    the gradient.
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
    bpda: tuple[str, ...] = ()
    until: float | None = None
    fresh: bool = False
    timeout: float | None = None
    allow_training_data: bool = False
    diagnose: bool = True
    checkpointing: bool = False


def eval_config(
    model: str,
    *,
    file: FileOptions | None = None,
    dataset: str | None = None,
    own_images: bool = False,
    norm: str | None = None,
    eps: str | SupportsFloat | None = None,
    attacks: Sequence[str] = (),
    n_examples: int | None = None,
    seed: int = 0,
    batch_size: int = 250,
    device: str = "auto",
    data_dir: Path | None = None,
    out: Path = Path("results"),
    bpda: Sequence[str] = (),
    audit: int | None = None,
    until: str | float | None = None,
    fresh: bool = False,
    timeout: float | None = None,
    allow_training_data: bool = False,
    diagnose: bool = True,
    checkpointing: bool = False,
) -> EvalConfig:
    """Check what was asked for and fill in what was not.

    A model that says which data set and threat model it was trained for defaults to them (to the
    test set that goes with the training set); any other needs both.  With `own_images` the caller
    has the images, and `dataset` only names them.  `audit` puts the attack `audit` with so large a
    sample behind the others.  `until` is as `parse_interval` reads it.  Raises SatbenchError:
    unknown names (with the nearest), missing files, numbers out of range, and what is missing.
    """
    request = request_model(model, **vars(file or FileOptions()))
    dataset = dataset or _default_dataset(model, request)
    if not own_images:
        check_name(dataset)
        dataset = completed(dataset, request.dataset, request.classes)
    for attack in attacks:
        check_attack_name(attack)
    parse_bpda(bpda)
    check_folder(out)
    if batch_size < 0:
        raise SatbenchError(f"expected a batch size of 1 or more, or auto, got {batch_size}")
    if n_examples is not None and n_examples < 1:
        raise SatbenchError(f"expected 1 example or more, got {n_examples}")
    threat = _threat(model, norm, eps, request.threat)
    for attack in attacks:
        check_attack_name(attack, threat)
    return EvalConfig(
        model=request,
        dataset=dataset,
        threat=threat,
        attacks=(*(attacks or DEFAULT_ATTACKS), *_audit(audit, until)),
        n_examples=n_examples,
        seed=seed,
        batch_size=batch_size,
        device=device,
        data_dir=data_dir,
        out=out,
        bpda=tuple(bpda),
        until=None if until is None else parse_interval(until),
        fresh=fresh,
        timeout=check_timeout(timeout),
        allow_training_data=allow_training_data,
        diagnose=diagnose,
        checkpointing=checkpointing,
    )


def first_examples(name: str, n_examples: int | None, data_dir: Path | None = None) -> Dataset:
    """Load the first images of a test set: for None the first 1,000, or all where it has fewer."""
    if n_examples is not None:
        return load_dataset(name, "test", n_examples, data_dir)
    return load_dataset(name, "test", DEFAULT_EXAMPLES, data_dir, or_fewer=True)


def _default_dataset(model: str, request: ModelRequest) -> str:
    if request.dataset is None:
        raise SatbenchError(f"say what to evaluate {model} on, such as --dataset cifar10")
    found = evaluation_set_of(request.dataset)
    if found is None:
        raise SatbenchError(
            f"{model} was trained on {request.dataset}, beside which there is no test set: say "
            "what to evaluate it on, --dataset NAME or --data FILE"
        )
    return found


def parse_interval(text: str | float) -> float:
    """Read the width of an interval, `2%` or `0.02` -> 0.02.

    Raises SatbenchError unless it is a number above 0 and at most 100 %.
    """
    number, percent, rest = str(text).strip().partition("%")
    try:
        width = float(number) / (100 if percent else 1)
    except ValueError:
        width = 0.0
    if rest or not 0 < width <= 1:
        raise SatbenchError(
            f"expected an interval above 0 and at most 100 %, such as 2% or 0.02, got {text!r}"
        )
    return width


def _audit(sample: int | None, until: str | float | None) -> tuple[str, ...]:
    if sample is None:
        return ()
    if sample < 1:
        raise SatbenchError(f"expected an audit of 1 image or more, got {sample}")
    if until is not None:
        raise SatbenchError(
            "an audit draws from all survivors at once: give --until-interval without --audit, "
            "then satbench challenge RECORD --attack audit"
        )
    return (f"audit(sample={sample})",)


def _threat(
    model: str, norm: str | None, eps: str | SupportsFloat | None, trained: str | None
) -> Threat:
    default = Threat.parse(trained) if trained else None
    if norm is None:
        norm = default.norm if default else "linf"
    if eps is not None:
        return Threat.of(norm, eps)
    if default is None or norm.lower() != default.norm:
        raise SatbenchError(f"say how far the adversary of {model} may go, such as --eps 8/255")
    return default
