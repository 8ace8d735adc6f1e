"""The settings of a training run: one frozen dataclass with every value checked."""

from __future__ import annotations

import re
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from typing import Any, Literal, get_args, get_type_hints

from satbench.attacks import check_attack_name
from satbench.core.errors import SatbenchError
from satbench.core.limits import MOST_SPEC_FLOAT, MOST_SPEC_NUMBER, check_seed
from satbench.core.specs import later, split_spec
from satbench.core.threat import Threat
from satbench.data import Interpolation, check_name
from satbench.engine.traits import check_step_text
from satbench.model_zoo.card import CERTIFIED_OBJECTIVES

TRAINING_ATTACKS = ("trades",)
"""Training attacks that are not attacks of an evaluation (`satbench.training.update.inner`)."""

IN_MEMORY = "tensors"
"""The name of the data set of a run on images from Python."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that the weights of a training run depend on.

    The data: `held_out` is the number of images at the end of the training set that are kept for
    the metrics; `augment` is the augmentation of the others, with `crop_padding` pixels around the
    image.  `subset` is the number of images that are used, chosen at random, the same for every
    seed; 0 for all.  For a folder of images, `crop` is the side in pixels of the crops, and
    `crop_schedule` gives other sides from some epochs on (the first is 1), such as `1:128,6:224`;
    held-out images always have the size `crop`.  `resize` is the length of the shortest side before
    cropping, by `interpolation`, or `none`.  If it is empty, images that already have the size
    `crop` are not resized, and others follow `satbench.data.training_rule`.  A rule in the name of
    the data set, imagefolder:PATH@RULE, replaces all three.  `colour_jitter` is the range of random
    factors, 1 ± `colour_jitter`, for brightness, contrast and saturation of the training images,
    and `lighting` the standard deviation of noise along the principal components of colour
    (`satbench.training.images.colours`).

    The training attack: `attack` is its spec, empty for standard training; `attack_mode` is the
    mode of batch-norm during the search; `clean_start` is the share of batches that start from the
    clean images; `attack_backward` is the gradient of activations in its passes, `true` (their own)
    or `softplus(10)` (Xie et al., 2020, arXiv:2006.14536, section 3.2).

    The outer step: `objective`, with the weight `beta` of the robust term of trades and mart; for
    the certified objectives ibp and crown-ibp, `ramp` is the share of the run over which eps rises
    from 0 to that of the threat model;
    `update_backward` is like `attack_backward`, in the passes of the update; `gradient_clip` is the
    largest L2 norm of the gradient, 0 for no limit; `awp` is the size of the adversarial weight
    perturbation relative to the weights, 0 for none, from epoch `awp_from` on (the first is 1).

    The learning rate: `schedule` (`training.update.schedule`); `warm_up` is the share of the run
    over which the rate rises, from `warm_up_start`; `milestones` are the epochs after which the
    schedule `step` multiplies the rate by `factor`.  Trainable parameters of activations have the
    rate times `activation_rate` (0: they do not change).

    The weights: `ema_decay` of their moving average, 0 for none; `swa_from` is the epoch from
    whose end on they are averaged evenly, 0 for never; `keep` chooses the epoch of the result,
    `best` by held-out PGD-10 accuracy, or `last`; `init` names the weights to start from, empty for
    random ones.

    The checks: `on_overfitting` says what happens when held-out PGD-10 accuracy is lower than that
    under the training attack, or than that of the best epoch, by at least `overfitting_drop` (a
    share; 0.2 as in the code of Wong et al., 2020, arXiv:2001.03994).  Long epochs have `checks`
    checks.

    The computation: `precision` of the passes (weights and measured accuracies stay float32);
    `accumulate` is the number of parts of a batch; `channels_last`;
    `compile` (torch.compile); `sync_batch_norm` over the processes of a distributed run.

    Raises SatbenchError for a value out of range or an unknown name.
    """

    recipe: str
    dataset: str
    architecture: str
    activation: str
    threat: str
    attack: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    attack_mode: Literal["train", "eval"] = "eval"
    held_out: int = 1000
    momentum: float = 0.9
    warm_up: float = 0.0
    label_smoothing: float = 0.0
    seed: int = 0
    objective: Literal["cross-entropy", "trades", "mart", "ibp", "crown-ibp"] = later(
        "cross-entropy"
    )
    beta: float = later(0.0)
    ramp: float = later(0.0)
    clean_start: float = later(0.0)
    attack_backward: str = later("true")
    update_backward: str = later("true")
    augment: Literal["none", "flip", "crop-flip", "resized-crop-flip"] = later("none")
    crop_padding: int = later(4)
    nesterov: bool = later(True)
    schedule: Literal["one-cycle", "cosine", "linear", "step", "constant"] = later("one-cycle")
    warm_up_start: float = later(0.0)
    milestones: tuple[int, ...] = later(())
    factor: float = later(0.1)
    gradient_clip: float = later(0.0)
    awp: float = later(0.0)
    awp_from: int = later(1)
    ema_decay: float = later(0.0)
    swa_from: int = later(0)
    keep: Literal["last", "best"] = later("last")
    on_overfitting: Literal["warn", "stop", "rollback"] = later("warn")
    overfitting_drop: float = later(0.2)
    precision: Literal["float32", "bfloat16"] = later("float32")
    accumulate: int = later(1)
    channels_last: bool = later(True)
    compile: bool = later(False)
    sync_batch_norm: bool = later(False)
    crop: int = later(224)
    crop_schedule: str = later("")
    colour_jitter: float = later(0.0)
    activation_rate: float = later(1.0)
    lighting: float = later(0.0)
    init: str = later("")
    resize: str = later("")
    interpolation: Interpolation = later("bicubic")  # noqa: RUF009 (a text)
    subset: int = later(0)
    checks: int = later(4)

    def __post_init__(self) -> None:
        Threat.parse(self.threat)
        if self.dataset != IN_MEMORY:
            check_name(self.dataset)
        if self.attack and split_spec(self.attack)[0] not in TRAINING_ATTACKS:
            check_attack_name(self.attack, Threat.parse(self.threat))
        elif self.attack:
            check_step_text(*split_spec(self.attack), Threat.parse(self.threat))
        for name, kind in _types().items():
            choices, value = get_args(kind), getattr(self, name)
            if choices and isinstance(choices[0], str) and value not in choices:
                wanted = f"{', '.join(choices[:-1])} or {choices[-1]}"
                raise SatbenchError(f"expected {name} {wanted}, got {value!r}")
        self._check_ranges()
        self._check_combinations()

    def _check_ranges(self) -> None:
        for name, value in vars(self).items():
            for one in value if isinstance(value, tuple) else (value,):
                is_number = isinstance(one, int | float) and name != "seed"
                most = MOST_SPEC_NUMBER if isinstance(one, int) else MOST_SPEC_FLOAT
                if is_number and not abs(one) <= most:
                    raise SatbenchError(f"expected {name} up to {most:g}, got {str(one)[:40]}")
        for name in (
            "epochs",
            "batch_size",
            "held_out",
            "accumulate",
            "awp_from",
            "crop",
            "checks",
        ):
            if getattr(self, name) < 1:
                raise SatbenchError(f"expected {name} of 1 or more, got {getattr(self, name)}")
        for name in (
            *("weight_decay", "beta", "crop_padding", "gradient_clip", "awp", "swa_from"),
            *("warm_up_start", "factor", "activation_rate", "lighting", "subset"),
        ):
            if not getattr(self, name) >= 0:
                raise SatbenchError(f"expected {name} of 0 or more, got {getattr(self, name)}")
        for name in ("momentum", "label_smoothing", "ema_decay", "warm_up"):
            if not 0 <= getattr(self, name) < 1:
                raise SatbenchError(f"expected {name} from 0 to below 1, got {getattr(self, name)}")
        for name in ("clean_start", "overfitting_drop", "colour_jitter", "ramp"):
            if not 0 <= getattr(self, name) <= 1:
                raise SatbenchError(f"expected {name} from 0 to 1, got {getattr(self, name)}")
        check_seed(self.seed)
        if not self.learning_rate > 0:
            raise SatbenchError(f"expected learning_rate above 0, got {self.learning_rate}")

    def _check_combinations(self) -> None:
        certified = self.objective in CERTIFIED_OBJECTIVES
        plain = self.objective == "cross-entropy" or certified
        smooth = self.attack_backward != "true" or self.update_backward != "true"
        _crops(self.crop_schedule)
        whole = not self.dataset.startswith("imagefolder:")
        cropped = self.crop != 224 or bool(self.crop_schedule or self.resize)
        rising = sorted(set(self.milestones)) == list(self.milestones)
        resized = self.resize in ("", "none") or re.fullmatch(r"[1-9]\d{0,3}", self.resize, re.A)
        for wrong, said in (
            (not resized, f"expected resize none or pixels, such as 256, got {self.resize!r}"),
            (not plain and not self.attack, f"objective {self.objective} needs an attack"),
            (not plain and self.beta == 0, f"objective {self.objective} needs a beta above 0"),
            (plain and self.beta > 0, "beta is only for the objectives trades and mart"),
            (self.ramp > 0 and not certified, "ramp is only for the objectives ibp and crown-ibp"),
            (
                certified and bool(self.attack),
                f"objective {self.objective} has no attack: give attack an empty text",
            ),
            (
                certified and (self.label_smoothing > 0 or self.awp > 0 or smooth),
                f"objective {self.objective} has no label smoothing, no awp and no other backward",
            ),
            (
                certified and (self.compile or self.sync_batch_norm),
                f"objective {self.objective} does not go with compile or sync_batch_norm",
            ),
            (
                certified and self.precision != "float32",
                f"objective {self.objective} is computed in float32",
            ),
            (
                self.objective == "mart" and self.label_smoothing > 0,
                "objective mart has no label smoothing",
            ),
            (
                (self.schedule == "step") != bool(self.milestones),
                "the schedule step needs milestones, such as milestones = [50, 75], and they need "
                "it",
            ),
            (not rising, f"expected rising milestones, got {list(self.milestones)}"),
            (
                self.batch_size % self.accumulate != 0,
                f"expected a batch_size that is a multiple of accumulate, {self.accumulate}, got "
                f"{self.batch_size}",
            ),
            (
                self.ema_decay > 0 and self.swa_from > 0,
                "ema_decay and swa_from are two averages of the weights; choose one",
            ),
            (
                whole and (cropped or self.augment == "resized-crop-flip"),
                "crop, resize, crop_schedule and augment resized-crop-flip need a dataset "
                "imagefolder:PATH",
            ),
            (whole and self.colour_jitter > 0, "colour_jitter needs a dataset imagefolder:PATH"),
            (whole and self.lighting > 0, "lighting needs a dataset imagefolder:PATH"),
            (self.compile and smooth, "compile does not go with another backward of activations"),
            (
                self.clean_start > 0 and split_spec(self.attack or "none")[0] != "pgd",
                "clean_start needs an attack pgd, whose start it changes",
            ),
        ):
            if wrong:
                raise SatbenchError(said)

    def crop_at(self, epoch: int) -> int:
        """Return the side of the crops in an epoch by the schedule; the first is 1; 0 for none."""
        return [0, *(side for first, side in _crops(self.crop_schedule) if first <= epoch)][-1]

    def to_dict(self) -> dict[str, Any]:
        """Return the config as JSON values.

        Settings that were added later are left out at their defaults, so that a run of an earlier
        version can be resumed and its card does not change.
        """
        values = asdict(self)
        for field in fields(self):
            if field.metadata.get("later") and values[field.name] == field.default:
                del values[field.name]
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def settings() -> dict[str, Any]:
    """Return the settings of a recipe and the type of each."""
    return {name: kind for name, kind in _types().items() if name != "recipe"}


@cache  # reading the annotations takes milliseconds, and every setting that is read asks
def _types() -> dict[str, Any]:
    return get_type_hints(TrainConfig)


def required() -> list[str]:
    """Return the settings that every recipe must have."""
    return [f.name for f in fields(TrainConfig) if f.default is MISSING and f.name != "recipe"]


def _crops(schedule: str) -> list[tuple[int, int]]:
    if not schedule:
        return []
    form = re.fullmatch(r"\d+:[1-9]\d*(,\d+:[1-9]\d*)*", schedule, re.ASCII)
    pairs = [part.split(":") for part in schedule.split(",")] if form else []
    found = [(int(first), int(side)) for first, side in pairs]
    firsts = [first for first, _ in found]
    if firsts[:1] != [1] or firsts != sorted(set(firsts)):
        raise SatbenchError(
            "expected crop_schedule as EPOCH:PIXELS with rising epochs from 1 on, such as "
            f"1:128,6:224, got {schedule!r}"
        )
    return found
