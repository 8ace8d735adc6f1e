"""A user's own parts of a training run from Python: network, loss, optimiser, schedule."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from satbench.calling.modules import check_module
from satbench.core.digests import digest_json
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.model_zoo.fitting import load_state
from satbench.model_zoo.weights import digest_weights
from satbench.preflight.image_checks import dataset_from_tensors
from satbench.preflight.preflight import check_set_up

Loss = Callable[[Tensor, Tensor], Tensor]
"""(B, K) logits, (B,) labels -> (B,) losses, or their mean, ()."""
OptimizerOf = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
"""The network's parameters -> their optimiser."""
SchedulerOf = Callable[[torch.optim.Optimizer, int], LRScheduler]
"""The optimiser and the number of steps of the run -> the learning rate schedule."""


@dataclass(frozen=True)
class Own:
    """Parts of a run that are not settings of a recipe; None if the recipe decides.

    `state` are weights to start from.  `images` says that the images exist only in memory.
    """

    network: nn.Module | None = None
    loss: Loss | None = None
    optimizer: OptimizerOf | None = None
    scheduler: SchedulerOf | None = None
    state: Mapping[str, Tensor] | None = None
    images: bool = False

    @property
    def retrainable(self) -> bool:
        """Whether a command line can repeat the training."""
        parts = (self.network, self.loss, self.optimizer, self.scheduler, self.state)
        return not self.images and all(part is None for part in parts)

    def described(self) -> str:
        """Return a text that identifies these parts; empty if all are the recipe's.

        For the network it has the class, the layers and the shapes of the weights; for functions,
        the names.
        """
        parts = {
            "network": "" if self.network is None else _network_text(self.network),
            "loss": name_of(self.loss),
            "optimizer": name_of(self.optimizer),
            "scheduler": name_of(self.scheduler),
        }
        return "; ".join(f"{part} {text}" for part, text in parts.items() if text)

    def weights(self) -> str:
        """Return the digest of the given initial weights; empty for none."""
        found = {} if self.network is None else {"network": digest_weights(self.network)}
        if self.state is not None:
            found["state"] = _digest_of_state(self.state)
        return digest_json(found) if found else ""

    def notes(self) -> tuple[str, ...]:
        """Return the notes on these parts for the card."""
        notes = []
        if self.loss is not None:
            notes.append(
                f"the loss is the user's own, {name_of(self.loss)}; objective, beta and "
                "label_smoothing of the recipe do not apply"
            )
        if self.optimizer is not None:
            notes.append(
                f"the optimiser is the user's own, {name_of(self.optimizer)}; momentum, nesterov, "
                "weight_decay, activation_rate, learning_rate and schedule of the recipe do not "
                "apply"
            )
        if self.scheduler is not None:
            notes.append(
                f"the learning rate is scheduled by the user's own {name_of(self.scheduler)}; "
                "schedule, warm_up and milestones of the recipe do not apply"
            )
        if self.state is not None:
            notes.append(f"starts from a state dict, SHA-256 {_digest_of_state(self.state)[:12]}…")
        return tuple(notes)


NOTHING = Own()
"""A run in which all parts are the recipe's."""


def own_copy(network: nn.Module) -> nn.Module:
    """Return a copy of a user's network to train.  Raises SatbenchError if it cannot be copied."""
    check_module(network)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise SatbenchError(
            "expected a network with trainable weights, got one without: set requires_grad"
        )
    try:
        return deepcopy(network)
    except Exception as error:  # a user's own code can raise anything
        raise SatbenchError(
            f"expected a network that copy.deepcopy can copy, got {type(error).__name__}: {error}"
        ) from None


def check_network(network: nn.Module, x: Tensor, y: Tensor, classes: int, threat: str) -> None:
    """Check a user's network on a few images, as an evaluation does.

    (B, C, H, W) in [0, 1], (B,).  Raises SatbenchError for invalid answers.
    """
    check_set_up(network, dataset_from_tensors(x, y, classes), Threat.parse(threat))


def put_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict into a network, strictly.  Raises SatbenchError if it does not fit."""
    load_state(network, dict(state), Path("init"))


def checked_loss(loss: Loss, logits: Tensor, y: Tensor) -> Tensor:
    """Return the mean of a user's loss.  (B, K), (B,) -> ().

    Raises SatbenchError unless it returns a loss for each image, or their mean, with a gradient.
    """
    losses = loss(logits, y)
    if not isinstance(losses, Tensor):
        raise SatbenchError(f"expected loss= to return a tensor, got {type(losses).__name__}")
    if tuple(losses.shape) not in ((), (len(y),)):
        raise SatbenchError(
            f"expected loss= to return ({len(y)},) losses of the images, or their mean, got shape "
            f"{tuple(losses.shape)}"
        )
    if torch.is_grad_enabled() and not losses.requires_grad:
        raise SatbenchError(
            "expected loss= to return a loss with a gradient, got one that does not depend on the "
            "logits: do not detach them"
        )
    return losses.mean()


def check_parts(own: Own) -> None:
    """Raise SatbenchError for a part that is not a function, before anything is read or made."""
    for name, part, example in (
        ("loss", own.loss, "torch.nn.CrossEntropyLoss()"),
        ("optimizer", own.optimizer, "lambda parameters: torch.optim.Adam(parameters, 1e-3)"),
        ("scheduler", own.scheduler, "lambda optimizer, steps: StepLR(optimizer, steps // 3)"),
    ):
        made = isinstance(part, torch.optim.Optimizer | LRScheduler)
        if isinstance(part, type) and issubclass(part, nn.Module):
            raise SatbenchError(
                f"expected {name}= as a function, got the class {part.__name__}: make an instance, "
                f"{part.__name__}()"
            )
        if part is not None and (made or not callable(part)):
            raise SatbenchError(
                f"expected {name}= as a function, got a {type(part).__name__}: write {example}"
            )
    bad = [k for k, v in (own.state or {}).items() if not isinstance(v, Tensor)]
    if bad:
        raise SatbenchError(
            f"expected init as a state dict of tensors, got another type for {bad[0]}: pass "
            "model.state_dict()"
        )


def on_device(loss: Loss | None, device: torch.device) -> Loss | None:
    """Move the tensors of a loss that is a module, such as class weights, to a device.

    Raises SatbenchError for a loss with parameters, which no optimiser would train.
    """
    if not isinstance(loss, nn.Module):
        return loss
    if any(True for _ in loss.parameters()):
        raise SatbenchError(
            "expected loss= without parameters, which would not be trained: make them "
            "buffers, or part of the network"
        )
    return deepcopy(loss).to(device)


def own_optimizer(factory: OptimizerOf, network: nn.Module) -> torch.optim.Optimizer:
    """Make a user's optimiser for a network.  Raises SatbenchError if it is not an optimiser."""
    optimizer = factory([p for p in network.parameters() if p.requires_grad])
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise SatbenchError(
            f"expected optimizer= to return a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    own = {id(parameter) for parameter in network.parameters()}
    if any(id(p) not in own for group in optimizer.param_groups for p in group["params"]):
        raise SatbenchError(
            "expected optimizer= to use the parameters that it is given, got others: satbench "
            "trains a copy of the network; write optimizer=lambda parameters: SGD(parameters, 0.1)"
        )
    step = list(signature(optimizer.step).parameters.values())
    if any(p.default is Parameter.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in step):
        raise SatbenchError(
            f"expected an optimiser whose step needs no closure, got "
            f"{type(optimizer).__name__}, which needs one"
        )
    return optimizer


def own_scheduler(
    factory: SchedulerOf, optimizer: torch.optim.Optimizer, steps: int
) -> LRScheduler:
    """Make a user's schedule of `steps` steps.  Raises SatbenchError if it is not a schedule."""
    scheduler = factory(optimizer, steps)
    if isinstance(scheduler, ReduceLROnPlateau) or not isinstance(scheduler, LRScheduler):
        raise SatbenchError(
            "expected scheduler= to return a schedule of torch.optim.lr_scheduler that needs no "
            f"metric, got {type(scheduler).__name__}"
        )
    try:
        kept = io.BytesIO()
        torch.save(scheduler.state_dict(), kept)
        kept.seek(0)
        torch.load(kept, weights_only=True)
    except Exception:  # pickle and torch can raise anything
        raise SatbenchError(
            f"expected a schedule that a checkpoint can store, got {type(scheduler).__name__} with "
            "objects in its state; LambdaLR with a plain function works"
        ) from None
    return scheduler


def name_of(part: object) -> str:
    """Return the name of a user's function, class or object; empty for None."""
    if part is None:
        return ""
    name = getattr(part, "__qualname__", None)
    named = part if name else type(part)
    return f"{named.__module__}.{name or type(part).__qualname__}"


def _network_text(network: nn.Module) -> str:
    shapes = [(name, list(tensor.shape)) for name, tensor in network.state_dict().items()]
    return f"{name_of(network)} {digest_json([repr(network), shapes])[:16]}"


def _digest_of_state(state: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
