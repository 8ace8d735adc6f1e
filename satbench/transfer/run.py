"""The matrix of transfer attacks: images made once a source, and judged by every target."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.attacks import parse_attack
from satbench.attacks.transfer.surrogates import FromSources, Transfer
from satbench.calling.blame import Batch
from satbench.calling.borrow import borrowed
from satbench.calling.devices import choose_device
from satbench.calling.generators import own_generators
from satbench.core.errors import SatbenchError
from satbench.core.files import file_stem
from satbench.core.noise import Noise
from satbench.core.specs import spec_of
from satbench.core.threat import show_fraction
from satbench.data import Dataset
from satbench.engine.judge import broken, predict
from satbench.engine.memory import CountedLent
from satbench.engine.passes import Passes
from satbench.engine.runner import Progress
from satbench.engine.searched import Kind, Trial, joint
from satbench.engine.traits import check_fit
from satbench.evaluation.config import EvalConfig, first_examples
from satbench.evaluation.environment import measured_environment
from satbench.evaluation.lending import Lending
from satbench.evaluation.own_code import identified
from satbench.evaluation.run import Silent
from satbench.evaluation.trained_on import check_not_trained_on
from satbench.models import LoadedModel, ModelRequest, load_model, request_model
from satbench.preflight.preflight import Needs, check_set_up
from satbench.records.answers import difference
from satbench.records.record import DatasetInfo, ModelInfo
from satbench.records.transfers import (
    KIND,
    TransferMatrix,
    TransferSource,
    TransferTarget,
    matrix_identity,
    read_matrix,
    write_matrix,
)
from satbench.transfer.config import ATTACK, TransferConfig


@dataclass(frozen=True)
class MeasuredTransfer:
    """A matrix, where it lies, and whether it was already there."""

    matrix: TransferMatrix
    path: Path
    found: bool


@dataclass(frozen=True)
class _Made:
    """The images of one source, (N, C, H, W), what they cost, and the models behind it."""

    source: TransferSource
    images: NDArray[np.float32]
    seconds: float
    models: tuple[ModelInfo, ...] = ()


def measure_transfer(config: TransferConfig, progress: Progress | None = None) -> MeasuredTransfer:
    """Measure the matrix, or return the one of the same inputs that lies in the folder `out`.

    With `config.base.fresh` it is measured even so.  All images of all sources are held in memory.
    Raises SatbenchError for models that do not fit the data set or each other, from preflight, and
    from the judge.
    """
    base, told = config.base, progress or Silent()
    device = choose_device(base.device)
    dataset = first_examples(base.dataset, base.n_examples, base.data_dir)
    attack = replace(cast(Transfer, parse_attack(base.attacks[0])), source="+".join(config.sources))
    check_fit(ATTACK, attack, base.threat)
    data = DatasetInfo(dataset.name, dataset.split, len(dataset), dataset.classes, dataset.digest)
    spec = spec_of(ATTACK, attack)
    with own_generators(device, base.seed):
        sources = _models(map(request_model, config.sources), dataset, base, device, True)
        targets = _models(config.targets, dataset, base, device, False)
        infos = {name: model.info for name, model in sources.items()}
        identity = matrix_identity(
            data,
            str(base.threat),
            base.seed,
            spec,
            infos,
            {name: model.info for name, model in targets.items()},
        )
        eps = show_fraction(base.threat.eps)
        words = (KIND, data.name, base.threat.norm, eps.replace("/", "over"), identity[:8])
        path = base.out / f"{file_stem(words)}.json"
        if not base.fresh and path.exists() and (matrix := read_matrix(path)).identity == identity:
            return MeasuredTransfer(matrix, path, found=True)
        made = list(_make(attack, infos, dataset, base, device, told))
        started = time.perf_counter()
        judged = [_judge(model, made, dataset, base, device, told) for model in targets.values()]
        seconds = time.perf_counter() - started
    matrix = TransferMatrix(
        identity=identity,
        dataset=data,
        norm=base.threat.norm,
        eps=eps,
        seed=base.seed,
        attack=spec,
        sources=[one.source for one in made],
        targets=judged,
        environment=measured_environment(
            device, base.batch_size, seconds, [one.seconds for one in made]
        ),
    )
    write_matrix(matrix, path)
    return MeasuredTransfer(matrix, path, found=False)


def _models(
    requests: Iterable[ModelRequest],
    dataset: Dataset,
    base: EvalConfig,
    device: torch.device,
    uses_gradients: bool,
) -> dict[str, LoadedModel]:
    """Load models and check that each fits the data set, by what the user wrote."""
    return {
        request.text: _checked(
            load_model(request, dataset.classes), dataset, base, device, uses_gradients
        )
        for request in requests
    }


def _checked(
    loaded: LoadedModel,
    dataset: Dataset,
    base: EvalConfig,
    device: torch.device,
    uses_gradients: bool,
) -> LoadedModel:
    name = loaded.info.name
    loaded.check_images(dataset.shape, dataset.name)
    if not uses_gradients:  # a target
        check_not_trained_on(loaded.info, base.dataset, dataset)
    module = loaded.module.to(device)
    try:
        check_set_up(module, dataset, base.threat, Needs(gradients=uses_gradients))
        return replace(loaded, info=identified(loaded.info, module, dataset, device))
    except SatbenchError as error:
        raise SatbenchError(f"{name}: {error}") from None
    finally:
        module.cpu()


def _make(
    attack: Transfer,
    infos: dict[str, ModelInfo],
    dataset: Dataset,
    base: EvalConfig,
    device: torch.device,
    progress: Progress,
) -> Iterator[_Made]:
    """Make the images of each part of the attack, one for every image of the data set."""
    for name, part in attack.parts():
        started, passes = time.perf_counter(), Passes()
        trial, kinds = Trial(), list[Kind]()
        lent = CountedLent(Lending(dataset, base.data_dir), passes, device, trial)
        names = cast(FromSources, part).sources
        ready = cast(FromSources, part).prepare(_nobody, lent, base.threat, base.seed)
        images = np.empty((len(dataset), *dataset.shape), np.float32)
        progress.stage(f"on {name}", total=len(dataset), done=0)
        for batch in _batches(dataset, base.batch_size):
            x, y = _load(dataset, batch, device)
            noise = Noise(base.seed, name, tuple(batch.tolist()))
            search = partial(ready, _nobody, x, y, base.threat, noise)
            with Batch(None, dataset, batch, f"on {name}").in_a_sentence():
                images[batch] = trial.run(search, passes.mark()).cpu().numpy()
            kinds.append(trial.kind)
            progress.advance(len(batch), len(dataset))
        weights = {each: infos[each].weights_digest for each in names}
        source = TransferSource(name, weights, *passes.take(), joint(kinds))
        behind = tuple(infos[each] for each in names)
        yield _Made(source, images, time.perf_counter() - started, behind)


def _judge(
    loaded: LoadedModel,
    made: list[_Made],
    dataset: Dataset,
    base: EvalConfig,
    device: torch.device,
    progress: Progress,
) -> TransferTarget:
    """Let the judge decide about the images of every source on one target."""
    module = loaded.module.to(device)
    clean, right = np.zeros(len(dataset), bool), np.zeros((len(made), len(dataset)), bool)
    progress.stage(f"judged by {loaded.info.name}", total=len(dataset), done=0)
    with borrowed(module) as judged:
        for batch in _batches(dataset, base.batch_size):
            x, y = _load(dataset, batch, device)
            with Batch(judged, dataset, batch, f"of {loaded.info.name}").in_a_sentence():
                clean[batch] = (predict(judged, x) == y).cpu().numpy()
                for row, one in zip(right, made, strict=True):
                    x_adv = torch.from_numpy(one.images[batch]).to(device)
                    row[batch] = ~broken(judged, x, x_adv, y, base.threat).cpu().numpy()
            progress.advance(len(batch), int((clean & right.all(0)).sum()))
    module.cpu()
    right &= clean
    white_box = [any(_is_itself(loaded.info, other) for other in one.models) for one in made]
    others = right[~np.array(white_box)]
    broken_by = np.bincount((clean & ~others).sum(0)[clean], minlength=len(others) + 1)
    return TransferTarget(
        model=loaded.info,
        clean_correct=int(clean.sum()),
        correct=right.sum(1).tolist(),
        white_box=white_box,
        worst=int(others.all(0).sum()) if len(others) else None,
        broken_by=broken_by.tolist(),
        forwards=len(dataset) * (1 + len(made)),
    )


def _is_itself(target: ModelInfo, source: ModelInfo) -> bool:
    """Whether a source is the target; code tells them apart where both are their user's."""
    told = bool(target.answers and source.answers)
    same = target.weights_digest == source.weights_digest
    return same and not (told and difference(target.answers, source.answers))


def _nobody(x: Tensor) -> Tensor:
    raise AssertionError("no target is asked while images are made")


def _batches(dataset: Dataset, batch_size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(dataset), batch_size):
        yield np.arange(start, min(start + batch_size, len(dataset)))


def _load(
    dataset: Dataset, batch: NDArray[np.int64], device: torch.device
) -> tuple[Tensor, Tensor]:
    return (
        torch.from_numpy(dataset.pixels(batch)).to(device),
        torch.from_numpy(dataset.labels[batch]).to(device),
    )
