"""The function `satbench.attack`, which turns images into adversarial images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import SupportsFloat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.attacks.suites.suite import check_suite, parse_suite
from satbench.attacks.targeted import view_of
from satbench.calling.borrow import borrowed
from satbench.calling.devices import choose_device, device_of, moved
from satbench.calling.generators import own_generators
from satbench.calling.logits import ask
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.machine.threads import one_thread_if_small
from satbench.engine.runner import CLEAN, BatchResult, Context
from satbench.engine.stage import Stage
from satbench.engine.suite_run import run_suite
from satbench.engine.toward import Toward
from satbench.evaluation.arguments import (
    AttackGiven,
    attack_list,
    check_arguments,
    checked_model,
    images_at_once,
    plain_number,
)
from satbench.evaluation.config import DEFAULT_BATCH
from satbench.evaluation.python.loading import load_model
from satbench.evaluation.surrogates import NamedSurrogates, with_surrogates
from satbench.preflight.preflight import Needs, check_set_up
from satbench.preflight.reading import Images, Labels, images_given


def attack(
    model: object,
    x: Images,
    y: Labels,
    attack: AttackGiven,
    *,
    eps: str | SupportsFloat,
    norm: str = "linf",
    target: int | Labels | None = None,
    seed: int = 0,
    batch_size: int = 250,
    device: str | torch.device = "auto",
) -> Tensor:
    """Attack images, and return adversarial ones.  (N, C, H, W), (N,) -> (N, C, H, W) float32.

    `model`, `x`, `y`, `norm`, `eps` and `seed` are as for `satbench.evaluate`; `attack` is a spec
    such as `"pgd-20"` or `"autoattack"`, or your own attack.  The result is within `eps` of `x` and
    in [0, 1], on the device of `x`; run the model on it to see which images fool it.  An image that
    is already wrong is returned unchanged, and one that survives as the last attack left it.

    With `target`, one class or one for each image, (N,), the attack looks for images that the model
    classifies as that class; an image that it already classifies so is returned unchanged.  pgd,
    apgd-ce, cosine-pgd, square, fab-t and the attacks of Foolbox can be targeted
    (`satbench.attacks.targeted`).

    The model runs on `device`, by default its own, and does not change.  Raises SatbenchError for a
    wrong set-up, and for an attack that cannot be targeted.

    >>> import satbench
    >>> model = satbench.load_model("fmnist-sat-tiny-silu-s0")
    >>> x, y = satbench.load_dataset("fashion-mnist", 20)
    >>> x_adv = satbench.attack(model, x, y, "pgd-20", eps="8/255")
    >>> x_adv.shape == x.shape, bool(((x_adv - x).abs() < 8 / 255 + 1e-6).all())
    (True, True)
    >>> bags = satbench.attack(model, x, y, "pgd-20", eps=0.2, target=8)
    >>> bool((model(bags).argmax(1) == 8).any())
    True
    """
    check_arguments(attack=attack, norm=norm, eps=eps, seed=seed, batch_size=batch_size)
    at_once = images_at_once(batch_size, DEFAULT_BATCH)
    check_arguments(device=device, model=model)
    home = x.device if isinstance(x, Tensor) else torch.device("cpu")
    dataset = images_given(x, y)
    module = load_model(model) if isinstance(model, str) else checked_model(model)
    threat = Threat.of(norm, plain_number(eps))
    specs = with_surrogates(attack_list(attack), dataset.name, threat)
    suite = parse_suite(specs)
    check_suite(suite, threat)
    chosen = device_of(module) if str(device) == "auto" else choose_device(str(device))
    asked = _Attempt(dataset, threat, suite, int(seed), at_once)
    with own_generators(chosen, int(seed)), moved([module], chosen):
        learnt = check_set_up(module, dataset, threat, Needs.of(suite), None, at_once)
        with one_thread_if_small(chosen, learnt.flops):
            if target is None:
                asked.run(module, np.arange(len(dataset)), predictions=learnt.predictions)
            else:
                view = view_of(specs[0])
                wanted = _targets(target, len(dataset), _classes(module, dataset, chosen))
                for number in np.unique(wanted):
                    toward = Toward(module, int(number), view).eval()
                    asked.run(toward, np.flatnonzero(wanted == number), aimed=True)
    return torch.from_numpy(asked.x_adv).to(home)


@dataclass
class _Attempt:
    """A suite to run on images in parts; `x_adv` (N, C, H, W) is the result."""

    dataset: Dataset
    threat: Threat
    suite: tuple[Stage, ...]
    seed: int
    batch_size: int
    x_adv: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise SatbenchError(f"expected a batch size of 1 or more, got {self.batch_size}")
        self.x_adv = self.dataset.pixels(np.arange(len(self.dataset)))

    def run(
        self,
        model: nn.Module,
        rows: NDArray[np.int64],
        aimed: bool = False,
        predictions: NDArray[np.int64] | None = None,
    ) -> None:
        """Attack the images of some rows.  If `aimed`, `model` answers 1 for the target, else 0.

        `predictions` are those of the first images, if they are known.
        """
        images = self.dataset
        if aimed:
            images = replace(images, labels=np.zeros(len(images), np.int64), classes=2)
        context = Context(
            images,
            self.threat,
            _OnRows(rows, len(images), images.shape),
            seed=self.seed,
            batch_size=self.batch_size,
            surrogates=NamedSurrogates(images),
            found=self._take,
            predictions=predictions,
        )
        run_suite(model, self.suite, context)

    def _take(self, places: NDArray[np.int64], x_adv: Tensor) -> None:
        self.x_adv[places] = x_adv.detach().cpu().numpy()


class _OnRows:
    """A journal in which the images of all other rows are wrong when clean, so none is attacked."""

    def __init__(self, rows: NDArray[np.int64], n: int, shape: tuple[int, ...]) -> None:
        self._others, self._shape = np.setdiff1d(np.arange(n), rows), shape

    def finished(self) -> Iterator[BatchResult]:
        """Return that the images of other rows are done."""
        if len(self._others):
            nothing = np.empty((0, *self._shape), np.float32)
            wrong = np.ones(len(self._others), bool)
            yield BatchResult(CLEAN, self._others, wrong, nothing, 0, 0, seconds=0.0)

    def write(self, result: BatchResult) -> None:
        """Keep nothing."""


def _classes(module: nn.Module, dataset: Dataset, device: torch.device) -> int:
    with borrowed(module) as model, torch.no_grad():
        return int(ask(model, torch.from_numpy(dataset.pixels(np.arange(1))).to(device)).shape[1])


def _targets(target: int | Labels, n: int, classes: int) -> NDArray[np.int64]:
    """Return the target class of each image, (N,)."""
    given = target.detach().cpu().numpy() if isinstance(target, Tensor) else np.asarray(target)
    if given.dtype.kind not in "iu" or given.shape not in ((), (1,), (n,)):
        raise SatbenchError(
            f"expected target as one class or as one for each image, ({n},) whole numbers, "
            f"got {given.dtype} of shape {given.shape}"
        )
    wanted = np.broadcast_to(given, (n,)).astype(np.int64)
    if wanted.min() < 0 or wanted.max() >= classes:
        strange = wanted[(wanted < 0) | (wanted >= classes)][0]
        raise SatbenchError(f"expected a target in 0…{classes - 1}, got {strange}")
    return wanted
