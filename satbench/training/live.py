"""The terminal display of a training run: a table with a row per epoch, and a progress bar."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.table import Table

from satbench.core.console import progress_bar
from satbench.recipes import TrainConfig
from satbench.training.watch import EpochMetrics, best_of

_COLUMNS = ("epoch", "rate", "loss", "train adv.", "held-out clean", "PGD-10", "images/s")


class LiveTable:
    """Progress on stderr; it shows nothing if stderr is not a terminal, or with `quiet`."""

    def __init__(self, title: str, config: TrainConfig, quiet: bool) -> None:
        self._title, self._config = title, config
        self._epochs: list[EpochMetrics] = []
        self._notes: list[str] = []
        self._bar = progress_bar(quiet)
        self._task = self._bar.add_task(title, total=None, note="")
        self.is_shown = not self._bar.disable
        self._live = Live(
            get_renderable=self._render, console=self._bar.console, refresh_per_second=4
        )

    def __enter__(self) -> Self:
        if self.is_shown:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.is_shown:
            self._live.stop()

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        """Show that a step of an epoch (from 0) is done."""
        note = f"epoch {epoch + 1}/{self._config.epochs}"
        total = self._config.epochs * steps
        self._bar.update(self._task, completed=epoch * steps + step, total=total, note=note)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Show that an epoch is done."""
        self._epochs.append(metrics)

    def on_note(self, note: str) -> None:
        """Show a note for the user."""
        self._notes.append(note)

    def _render(self) -> Group:
        return Group(*([self.table()] if self._epochs else []), self._bar)

    def table(self) -> Table:
        """Return the epochs as a table, the best by PGD-10 in bold, notes and warnings below."""
        warnings = [metrics.warning for metrics in self._epochs if metrics.warning]
        caption = "\n".join(dict.fromkeys((*self._notes, *warnings))) or None
        table = Table(title=self._title, caption=caption, caption_style="bold red", box=None)
        for column in _COLUMNS:
            table.add_column(column, justify="right")
        best = best_of(self._epochs)
        for metrics in self._epochs:
            table.add_row(*_cells(metrics), style="bold" if metrics is best else None)
        return table


def _cells(metrics: EpochMetrics) -> tuple[str, ...]:
    return (
        str(metrics.epoch),
        f"{metrics.learning_rate:.2g}",
        f"{metrics.loss:.3f}",
        f"{metrics.train_accuracy:.1%}",
        f"{metrics.held_out_clean:.1%}",
        f"{metrics.held_out_pgd10:.1%}",
        f"{metrics.images_per_second:.0f}",
    )
