"""The metrics of each epoch for TensorBoard, if it is installed."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from satbench.training.watch import EpochMetrics


def write_events(folder: Path, metrics: EpochMetrics) -> None:
    """Add the metrics of an epoch to `folder`; do nothing without the extra `satbench[logs]`."""
    if find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    # One file per epoch: a stopped run leaves no open file, and a resumed one adds to the curves.
    with SummaryWriter(str(folder), filename_suffix=f".{metrics.epoch}") as writer:
        for name, value in asdict(metrics).items():
            if name == "warning":
                if value:
                    writer.add_text(name, value, metrics.epoch)
            elif name != "epoch" and isinstance(value, float | int):
                writer.add_scalar(name, value, metrics.epoch)
