"""The options of `satbench eval` as one frozen value, checked before torch is imported."""

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
"""The batch size that means: measure it."""

DEFAULT_BATCH = 250
DEFAULT_EXAMPLES = 1000
DEFAULT_ATTACKS = ("pgd-50", "autoattack")


@dataclass(frozen=True)
class EvalConfig:
    """One model × dataset × threat model × suite × seed.

    `n_examples` None means the first 1,000 images, or all of a smaller split.  `bpda` maps layers
    to the source of their backward in searches.  With `until`, a share in (0, 1], images are
    evaluated in a random order until the 95 % interval is no wider; `n_examples` None then means
    all.  With `fresh`, an existing result in `out` is made again.  Images that the model was
    trained on are refused unless `allow_training_data`.  Without `diagnose` satbench does not look
    for signs of masked gradients, and the record is flagged.  A `batch_size` of 0 is to be
    measured.  With `checkpointing`, searches keep less in memory for the gradient.
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
    """Check the options and fill in the defaults.

    If the model says which data set and threat model it was trained for, these are the defaults
    (with the test set of that data set); otherwise both are required.  With `own_images` the caller
    has the images, and `dataset` is only their name.  `audit` adds the attack `audit` with this
    sample size after the others.  `until` is read by `parse_interval`.  Raises SatbenchError for
    unknown names (with the nearest known one), missing files, numbers out of range, and missing
    options.
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
    """Load the first images of a test set; None means the first 1,000, or all if it has fewer."""
    if n_examples is not None:
        return load_dataset(name, "test", n_examples, data_dir)
    return load_dataset(name, "test", DEFAULT_EXAMPLES, data_dir, or_fewer=True)


def _default_dataset(model: str, request: ModelRequest) -> str:
    if request.dataset is None:
        raise SatbenchError(f"expected a data set for {model}, such as --dataset cifar10")
    found = evaluation_set_of(request.dataset)
    if found is None:
        raise SatbenchError(
            f"{model} was trained on {request.dataset}, which has no test set: give the images to "
            "evaluate it on, --dataset NAME or --data FILE"
        )
    return found


def parse_interval(text: str | float) -> float:
    """Read the width of an interval, `2%` or `0.02` -> 0.02.

    Raises SatbenchError unless it is above 0 and at most 100 %.
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
        raise SatbenchError(f"expected a radius for the attacks on {model}, such as --eps 8/255")
    return default
