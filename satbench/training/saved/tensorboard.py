"""The metrics of each epoch for TensorBoard, if it is installed."""

from __future__ import annotations

import io
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from satbench.core.files import write_bytes
from satbench.training.watch import EpochMetrics


def write_events(folder: Path, metrics: EpochMetrics) -> None:
    """Add the metrics of an epoch to `folder`, if it does not have them.

    Do nothing without the extra `satbench[logs]`.  Raises OSError if the disk does not take them.
    """
    if find_spec("tensorboard") is None:
        return
    # One whole file per epoch: a killed run leaves no half of one, and a resumed one adds to the
    # curves.  SummaryWriter would write in a thread, whose errors nobody could catch.
    path = folder / f"events.out.tfevents.{metrics.epoch:010d}.satbench"
    if not path.exists():
        write_bytes(path, _events(metrics))


def _events(metrics: EpochMetrics) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.utils.tensorboard.summary import scalar, text

    now, held = time.time(), io.BytesIO()
    records = RecordWriter(held)
    records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for name, value in asdict(metrics).items():
        if name == "warning":
            summary = text(name, value) if value else None  # type: ignore[no-untyped-call]
        else:
            is_number = name != "epoch" and isinstance(value, float | int)
            summary = scalar(name, value) if is_number else None  # type: ignore[no-untyped-call]
        if summary is not None:
            event = Event(wall_time=now, step=metrics.epoch, summary=summary)
            records.write(event.SerializeToString())
    return held.getvalue()
