"""Batch-norm over the images of all processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from satbench.recipes import TrainConfig


def synchronised(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network with statistics of every batch-norm over all processes.

    On a GPU it uses torch's own layers; torch has none for the CPU, so ours compute the same
    there.  Names of parameters and buffers do not change.
    """
    if device.type == "cuda":
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        return convert(network)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = _SyncBatchNorm2d
    return network


def statistics_note(config: TrainConfig, network: nn.Module, processes: int) -> str:
    """Return a note if batch-norm does not see the whole batch at once, else nothing.

    Each part of a batch (`accumulate`), and each process without `sync_batch_norm`, has its own
    statistics; everything else adds up to the result of the whole batch.
    """
    shares = config.accumulate * (1 if config.sync_batch_norm else processes)
    if shares == 1 or not any(isinstance(m, _BatchNorm) for m in network.modules()):
        return ""
    return (
        f"batch-norm computes its statistics over {config.batch_size // shares} images at a time, "
        f"not over the batch of {config.batch_size}: the weights differ from those of a run with "
        "the whole batch (docs/training.md says how far)"
    )


class _SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch-norm with mean and variance over the batches of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        # Exchange sums, not means: processes may have batches of different size.
        count = x.new_full((1,), x.numel() / x.shape[1])
        local = torch.cat([x.sum((0, 2, 3)), count])
        sums = _sum_over_all(local)
        mean = sums[:-1] / sums[-1]
        centred = x - mean.view(1, -1, 1, 1)
        variance = _sum_over_all(centred.square().sum((0, 2, 3))) / sums[-1]
        self._keep(mean.detach(), variance.detach(), float(sums[-1].detach()))
        normal = centred * (variance + self.eps).rsqrt().view(1, -1, 1, 1)
        if not self.affine:
            return normal
        return normal * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)

    def _keep(self, mean: Tensor, variance: Tensor, count: float) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        seen = 1.0
        if self.num_batches_tracked is not None:
            seen = float(self.num_batches_tracked.add_(1))
        share = 1 / seen if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(count - 1, 1), share)


def _sum_over_all(values: Tensor) -> Tensor:
    if dist.is_initialized() and dist.get_world_size() > 1:
        return cast(Tensor, _Sum.apply(values))
    return values


class _Sum(torch.autograd.Function):
    """The sum over all processes: of values forward, and of gradients backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total
