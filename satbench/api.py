"""The Python interface: `satbench.evaluate(...)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from satbench.attacks.engine import Progress, device_of
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.devices import choose_device
from satbench.eval_config import (
    DEFAULT_ATTACKS,
    EvalConfig,
    eval_config,
    first_examples,
    parse_interval,
)
from satbench.evaluation import Finished, run_evaluation
from satbench.generators import own_generators
from satbench.models import describe_module, load_model
from satbench.plan import Evaluation
from satbench.preflight import check_module, dataset_from_tensors
from satbench.replacements import load_replacements, parse_bpda

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from satbench.leaderboard.record import Record


def evaluate(
    model: nn.Module | str,
    x: Tensor | NDArray[np.float32] | str | None = None,
    y: Tensor | NDArray[np.int64] | None = None,
    *,
    attacks: Sequence[str] = DEFAULT_ATTACKS,
    norm: str | None = None,
    eps: str | float | Fraction | None = None,
    n_examples: int | None = None,
    seed: int = 0,
    batch_size: int = 250,
    device: str = "auto",
    out: str | Path = "results",
    name: str | None = None,
    bpda: Mapping[str, str | nn.Module] | None = None,
    until: str | float | None = None,
) -> Record:
    """Evaluate a classifier's robustness and return the record.

    `model` takes images (B, C, H, W), float32 in [0, 1], to logits (B, K), or is a name that
    `satbench eval --model` takes.  `x` (N, C, H, W) and `y` (N,) int64 are the images and labels;
    or `x` is the name of a data set, of which the first `n_examples` are taken (1,000 if unset).
    `attacks` are run in order, each on the survivors of the last, within `eps` (pixel units,
    `"8/255"` or a number) in `norm` (`"linf"`, `"l2"` or `"l1"`).  `seed` keys all noise.  The
    record and its witnesses are written to the folder `out`, where a stopped evaluation goes
    on.  `bpda` names layers, as `model.named_modules()` does, whose gradient is replaced while
    attacks search, by that of a module, of `"identity"` or of what `"package.module:factory"`
    makes; the model's values stay its own.  With `until`, such as `"2%"` or 0.02, images are
    gone through in a random order, all of them or those of the first `n_examples`, until the 95
    % interval of the robust accuracy is no wider, however often one looks.

    The model is evaluated in eval mode and handed back as it came: parameters, `.grad`, buffers,
    mode and hooks untouched.  Raises SatbenchError, a ValueError, with one clear sentence for
    a wrong set-up.

    >>> import satbench
    >>> record = satbench.evaluate(
    ...     "fmnist-sat-tiny-silu-s0", attacks=["pgd-5"], n_examples=50, out=tmp
    ... )
    >>> record.surviving() <= record.clean_correct <= record.n
    True
    """
    named = x if isinstance(x, str) and y is None else None
    images = None if named or (x is None and y is None) else _dataset(x, y, n_examples)
    if isinstance(model, str):
        config = eval_config(
            model,
            dataset=images.name if images else named,
            own_images=images is not None,
            norm=norm,
            eps=None if eps is None else str(eps),
            attacks=attacks,
            n_examples=n_examples,
            seed=seed,
            batch_size=batch_size,
            device=device,
            out=Path(out),
            until=until,
        )
        return evaluate_config(config, bpda=bpda, images=images).record
    if not isinstance(model, nn.Module):
        kind, todo = type(model).__name__, "wrap a function in a Module whose forward calls it"
        if isinstance(model, type):
            kind, todo = f"the class {model.__name__}", f"make one, {model.__name__}()"
        raise SatbenchError(f"expected a torch.nn.Module or a name, got {kind}; {todo}")
    check_module(model)
    if eps is None:
        raise SatbenchError("say how far the adversary may go, such as eps='8/255'")
    width = None if until is None else parse_interval(until)
    evaluation = Evaluation(
        _first(named, n_examples, None, width) if named else images or _dataset(x, y, None),
        Threat.of(norm or "linf", eps),
        attacks,
        seed,
        batch_size,
        replacements=load_replacements(bpda or {}),
        until=width,
    )
    info = describe_module(model, name or type(model).__name__, "python")
    chosen = device_of(model) if device == "auto" else choose_device(device)
    with own_generators(chosen, seed):
        return run_evaluation(model, info, evaluation, chosen, Path(out)).record


def evaluate_config(
    config: EvalConfig,
    progress: Progress | None = None,
    bpda: Mapping[str, str | nn.Module] | None = None,
    images: Dataset | None = None,
) -> Finished:
    """Run what the command line was asked for, with `bpda` and `images` in place of its own."""
    device = choose_device(config.device)
    dataset = images or _first(config.dataset, config.n_examples, config.data_dir, config.until)
    with own_generators(device, config.seed):
        loaded = load_model(config.model, dataset.classes)
        loaded.check_images(dataset.shape, dataset.name)
        evaluation = Evaluation(
            dataset,
            config.threat,
            config.attacks,
            config.seed,
            config.batch_size,
            data_dir=config.data_dir,
            replacements=load_replacements(bpda or parse_bpda(config.bpda)),
            until=config.until,
        )
        return run_evaluation(loaded.module, loaded.info, evaluation, device, config.out, progress)


def _dataset(
    x: Tensor | NDArray[np.float32] | str | None,
    y: Tensor | NDArray[np.int64] | None,
    n_examples: int | None,
) -> Dataset:
    if x is None or y is None or isinstance(x, str):
        raise SatbenchError("expected images x and labels y, or the name of a data set as x")
    dataset = dataset_from_tensors(x, y)
    return dataset if n_examples is None else dataset.first(n_examples)


def _first(
    name: str, n_examples: int | None, data_dir: Path | None, until: float | None
) -> Dataset:
    if until is not None:
        return load_dataset(name, "test", n_examples, data_dir)
    return first_examples(name, n_examples, data_dir)
