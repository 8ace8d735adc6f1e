"""The Python interface: `satbench.evaluate(...)`."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Literal, SupportsFloat, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from satbench.calling.devices import choose_device, device_of
from satbench.calling.function import Function
from satbench.calling.generators import own_generators
from satbench.core.console import progress_of, say
from satbench.core.errors import SatbenchError
from satbench.core.files import check_folder
from satbench.core.progress.receiver import Progress
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.engine.claims import Member
from satbench.evaluation.arguments import (
    AttackGiven,
    attack_list,
    check_arguments,
    checked_model,
    images_at_once,
    plain_number,
)
from satbench.evaluation.config import (
    AUTO_BATCH,
    DEFAULT_ATTACKS,
    EvalConfig,
    eval_config,
    first_examples,
    parse_interval,
)
from satbench.evaluation.given import Given
from satbench.evaluation.plan import Evaluation
from satbench.evaluation.python.result import Result
from satbench.evaluation.replacements import load_replacements, parse_bpda
from satbench.evaluation.run import Finished, run_evaluation
from satbench.evaluation.trained_on import check_not_trained_on
from satbench.models import FileKeywords, FileOptions, describe_module, load_model
from satbench.preflight.reading import Images, Labels, Loader, images_given


def evaluate(
    model: Callable[[Tensor], object] | str,
    x: Images | Loader | str | None = None,
    y: Labels | None = None,
    *,
    attacks: AttackGiven | Sequence[AttackGiven] = DEFAULT_ATTACKS,
    norm: str | None = None,
    eps: str | SupportsFloat | None = None,
    n_examples: int | None = None,
    seed: int = 0,
    batch_size: int | Literal["auto"] = 250,
    device: str | torch.device = "auto",
    out: str | PathLike[str] | None = "results",
    name: str | None = None,
    bpda: Mapping[str, str | nn.Module] | None = None,
    until: str | float | None = None,
    fresh: bool = False,
    timeout: float | None = None,
    allow_training_data: bool = False,
    diagnose: bool = True,
    checkpointing: bool = False,
    progress: bool = True,
    **file: Unpack[FileKeywords],
) -> Result:
    """Evaluate a classifier's robustness and return the record.

    `model` is a Module or a function that maps images (B, C, H, W), float32 in [0, 1], to logits
    (B, K), or to an object with `.logits`.  It can also be a name that `satbench eval --model`
    takes.  `x` (N, C, H, W) and `y` (N,) int64 are the images and labels; uint8 pixels 0…255 and
    lists are accepted too.  `x` can also be a torch Dataset or DataLoader, which has the labels, or
    the name of a data set, whose first `n_examples` images are used (1,000 if unset).

    `attacks` run in order, each on the survivors of the ones before: specs such as `"autoattack"`,
    attack objects, and functions `attack(model, x, y, threat, noise)`, `attack(model, x, y, eps)`
    or `attack(model, x, y)`, which a record names by the digest of their code.  A single attack
    needs no list.  The adversary moves pixels within `eps` in `norm` (`"linf"`, `"l2"` or `"l1"`).
    `eps` is in pixel units: `"8/255"` or a number.  A number that equals n/255 or (n + 1/2)/255 up
    to the rounding of its type is read as that; any other as its shortest decimal.  `seed`
    determines all noise.

    The record and its witnesses are written to the folder `out`.  A stopped evaluation continues
    there.  If the folder already has the record of the same inputs, that record is returned:
    `record.found` is then true, and a line on stderr says so; `fresh=True` runs the evaluation
    again.  `record.robust_accuracy`, `.clean_accuracy` and `.interval` are the numbers;
    `.to_dataframe()`, `.adversarial()`, `.show(8)` and `.plot()` give tables, images and figures
    (`satbench.evaluation.python.result.Result`).  A bar on stderr shows the progress, in a terminal
    or a notebook; `progress=False` turns it off.  Your own model is recognised by its weights and
    by its logits and input gradients on up to 16 images.  With `out=None` the files are in a
    temporary folder, which is removed together with the record.

    `bpda` maps layer names, as in `model.named_modules()`, to a module, `"identity"` or
    `"package.module:factory"`.  While attacks search, the gradient of the layer is replaced by the
    gradient of that module; the values of the model do not change.  With `until`, such as `"2%"` or
    0.02, the images (all, or the first `n_examples`) are evaluated in a random order until the 95 %
    interval of the robust accuracy is no wider; the interval is valid however often one looks.  If
    `model` is a file of weights, `file` describes it with the fields of
    `satbench.models.FileOptions`, such as `architecture`, `activation`, `preset` and `normalize`.

    Images that a model with a card was trained on are refused; `allow_training_data` allows them,
    and the record is flagged.  With `diagnose=False` satbench does not look for signs of masked
    gradients; this saves a few percent of the passes, and the record is flagged.  If
    a batch takes more than `timeout` seconds, the evaluation ends with an error that names the
    image on which the model hangs; finished work is kept, and the same call continues.

    `batch_size="auto"` measures the fastest batch size and remembers it.  If a device runs out of
    memory, the batch is halved.  With `checkpointing`, searches keep fewer activations in memory
    and recompute them for the gradient: slower, for networks where one image does not fit.  No
    verdict depends on either.

    The model is evaluated in eval mode and is unchanged afterwards: parameters, `.grad`, buffers,
    mode and hooks.  Raises SatbenchError, a ValueError, with one sentence for a wrong set-up.

    >>> import satbench
    >>> record = satbench.evaluate(
    ...     "fmnist-sat-tiny-silu-s0", attacks="pgd-5", n_examples=50, out=tmp
    ... )
    >>> record.robust_accuracy <= record.clean_accuracy
    True
    >>> images = record.adversarial()
    >>> len(images.indices) == record.clean_correct - record.surviving()
    True
    """
    if unknown := file.keys() - FileKeywords.__annotations__:
        raise TypeError(f"evaluate() got an unexpected keyword argument {min(unknown)!r}")
    check_arguments(
        attacks=attacks,
        norm=norm,
        eps=eps,
        n_examples=n_examples,
        seed=seed,
        batch_size=batch_size,
        device=device,
        out=out,
        name=name,
        bpda=bpda,
        until=until,
        fresh=fresh,
        timeout=timeout,
        allow_training_data=allow_training_data,
        diagnose=diagnose,
        checkpointing=checkpointing,
        progress=progress,
    )
    named = x if isinstance(x, str) and y is None else None
    images = None if named or (x is None and y is None) else _images(x, y, n_examples)
    with _folder(out) as folder:
        asked = _Asked(
            attack_list(attacks),
            norm,
            None if eps is None else plain_number(eps),
            None if n_examples is None else int(n_examples),
            int(seed),
            images_at_once(batch_size, AUTO_BATCH),
            str(device),
            folder,
            until,
            fresh,
            None if timeout is None else float(timeout),
            bool(allow_training_data),
            bool(diagnose),
            bool(checkpointing),
        )
        if isinstance(model, str):
            title, given = model, Given(model, images, file=FileOptions(**file))
        elif file:
            raise SatbenchError(f"{', '.join(file)}: these options describe a file of weights")
        else:
            module = checked_model(model)
            title, given = name or _name_of(module), Given(module, images or named)
        with progress_of(title, progress) as shown:
            if isinstance(given.model, str):
                done = _evaluate_name(given, named, asked, bpda, shown)
            else:
                data = named or images or _images(x, y, None)
                done = _evaluate_module(module, title, data, asked, bpda, shown)
        return _handed_over(done, given, temporary=out is None)


def evaluate_config(
    config: EvalConfig,
    progress: Progress | None = None,
    bpda: Mapping[str, str | nn.Module] | None = None,
    images: Dataset | None = None,
    shared: bool | Member = False,
) -> Finished:
    """Run one evaluation of the command line; `bpda` and `images` replace those of `config`.

    Other processes may work on a `shared` run.
    """
    device = choose_device(config.device)
    dataset = images or _first(config.dataset, config.n_examples, config.data_dir, config.until)
    with own_generators(device, config.seed):
        loaded = load_model(config.model, dataset.classes, exactly=not dataset.more_classes)
        loaded.check_images(dataset.shape, dataset.name)
        name, allowed = images.name if images else config.dataset, config.allow_training_data
        trained_on = check_not_trained_on(loaded.info, name, dataset, allowed)
        evaluation = Evaluation(
            dataset,
            config.threat,
            config.attacks,
            config.seed,
            config.batch_size,
            data_dir=config.data_dir,
            replacements=load_replacements(bpda or parse_bpda(config.bpda)),
            until=config.until,
            timeout=config.timeout,
            trained_on=trained_on,
            diagnose=config.diagnose,
            checkpointing=config.checkpointing,
        )
        return run_evaluation(
            loaded.module,
            loaded.info,
            evaluation,
            device,
            config.out,
            progress,
            config.fresh,
            shared,
        )


@dataclass(frozen=True)
class _Asked:
    """The arguments of an evaluation, except the model and the images."""

    attacks: tuple[str, ...]
    norm: str | None
    eps: str | SupportsFloat | None
    n_examples: int | None
    seed: int
    batch_size: int
    device: str
    out: Path
    until: str | float | None
    fresh: bool
    timeout: float | None
    allow_training_data: bool
    diagnose: bool
    checkpointing: bool


def _evaluate_name(
    given: Given,
    named: str | None,
    asked: _Asked,
    bpda: Mapping[str, str | nn.Module] | None,
    progress: Progress | None,
) -> Finished:
    images = given.dataset if isinstance(given.dataset, Dataset) else None
    config = eval_config(
        str(given.model),
        file=given.file,
        dataset=images.name if images else named,
        own_images=images is not None,
        norm=asked.norm,
        eps=asked.eps,
        attacks=asked.attacks,
        n_examples=asked.n_examples,
        seed=asked.seed,
        batch_size=asked.batch_size,
        device=asked.device,
        out=asked.out,
        until=asked.until,
        fresh=asked.fresh,
        timeout=asked.timeout,
        allow_training_data=asked.allow_training_data,
        diagnose=asked.diagnose,
        checkpointing=asked.checkpointing,
    )
    return evaluate_config(config, progress, bpda=bpda, images=images)


def _evaluate_module(
    model: nn.Module,
    name: str,
    data: str | Dataset,
    asked: _Asked,
    bpda: Mapping[str, str | nn.Module] | None,
    progress: Progress | None,
) -> Finished:
    if asked.eps is None:
        raise SatbenchError("expected eps, the radius of the adversary, such as eps='8/255'")
    width = None if asked.until is None else parse_interval(asked.until)
    threat = Threat.of("linf" if asked.norm is None else asked.norm, asked.eps)
    evaluation = Evaluation(
        _first(data, asked.n_examples, None, width) if isinstance(data, str) else data,
        threat,
        asked.attacks,
        asked.seed,
        asked.batch_size,
        replacements=load_replacements(bpda or {}),
        until=width,
        timeout=asked.timeout,
        diagnose=asked.diagnose,
        checkpointing=asked.checkpointing,
    )
    info = describe_module(model, name, "python")
    chosen = device_of(model) if asked.device == "auto" else choose_device(asked.device)
    with own_generators(chosen, asked.seed):
        return run_evaluation(model, info, evaluation, chosen, asked.out, progress, asked.fresh)


def _name_of(module: nn.Module) -> str:
    return module.name if isinstance(module, Function) else type(module).__name__


@contextmanager
def _folder(out: str | PathLike[str] | None) -> Iterator[Path]:
    """Yield the folder to write to; a temporary one is removed if the evaluation fails."""
    if out is not None:
        check_folder(Path(out))
        yield Path(out)
        return
    folder = Path(tempfile.mkdtemp(prefix="satbench-"))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _handed_over(done: Finished, given: Given, temporary: bool) -> Result:
    """Print that a record was found, and tie a temporary folder to the life of the record."""
    plain = replace(done.record, path=done.path.absolute(), found=done.found)
    if done.found:
        made = plain.environment.finished
        say(f"satbench: found {done.path}, made {made}: nothing was run; fresh=True runs it again")
    record = Result.of(plain, given, kept=not temporary)
    if temporary:
        weakref.finalize(record, shutil.rmtree, done.path.parent, ignore_errors=True)
    return record


def _images(x: Images | Loader | str | None, y: Labels | None, n_examples: int | None) -> Dataset:
    alone = y is None and isinstance(x, Tensor | np.ndarray | list | tuple)
    if x is None or isinstance(x, str) or alone:
        raise SatbenchError("expected images x and labels y, or the name of a data set as x")
    dataset = images_given(x, y, n_examples)
    return dataset if n_examples is None else dataset.first(n_examples)


def _first(
    name: str, n_examples: int | None, data_dir: Path | None, until: float | None
) -> Dataset:
    if until is not None:
        return load_dataset(name, "test", n_examples, data_dir)
    return first_examples(name, n_examples, data_dir)
