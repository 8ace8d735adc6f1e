"""What a search asks: a fast copy of the model that proves itself, else the model.

A copy that differs from its model, or fails, is dropped, and the search begins again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from satbench.calling.borrow import generators_now, keep_buffers
from satbench.calling.logits import (
    ModelError,
    are_all_in_play,
    kept,
    read_logits,
    without_masks,
)
from satbench.calling.shortage import is_out_of_memory
from satbench.core.errors import SatbenchError
from satbench.engine.bpda import Replaced
from satbench.engine.fast_copy import fast_copy
from satbench.engine.judge import answered
from satbench.engine.machine.checkpointing import Checkpointed, again_on_the_way_back
from satbench.engine.proof import Proof, UnlikeError

Kind = Literal["", "folded", "plain"]
"""What was searched: nothing, fast copies only, or a model as it is."""

T = TypeVar("T")


def joint(kinds: Iterable[Kind]) -> Kind:
    """Return what was searched in all: `plain` where some model was searched as it is."""
    found = set(kinds)
    return "plain" if "plain" in found else "folded" if "folded" in found else ""


class Searched:
    """A model as a search asks it: by its fast copy as long as that proves to be the model.

    `model` is in eval mode, with frozen parameters.  With `replacements` (layer to what gives it a
    backward, see `satbench.engine.bpda`) nothing is rewritten, so that the layers stay where they
    are; nor is it with `checkpointing`, which keeps less for the gradient.  A copy is made when the
    model is first asked.  What it answers are logits already (`reads_itself`), which nobody needs
    to read once more.
    """

    reads_itself = True

    def __init__(
        self,
        model: nn.Module,
        replacements: Mapping[str, nn.Module] | None = None,
        checkpointing: bool = False,
    ) -> None:
        self.model = Replaced(model, replacements) if replacements else model
        if checkpointing:
            self.model = Checkpointed(self.model)
        self.asked = self.misled = False
        # Channels last or not: what is left to try.
        self._layouts = [] if replacements or checkpointing else [True, False]
        self._most: int | None = None  # images that the model is asked about at once
        self._proof: Proof | None = None

    def prove_anew(self) -> None:
        """Take nothing that is known of the copy as proven."""
        if self._proof:
            self._proof = Proof(self.model, self._proof.copy)

    def settle(self) -> None:
        """End a search: it was misled by a copy whose gradient was off, and never right."""
        if self._proof and self._proof.is_in_doubt:
            self._mislead()

    def stay_plain(self) -> None:
        """Make do without a copy from now on."""
        self._layouts, self._proof = [], None

    @property
    def kind(self) -> Kind:
        """What was asked last: by the current batch of a search."""
        if not self.asked:
            return ""
        return "folded" if self._proof else "plain"

    def get_ready(self) -> None:
        """Make the copy, unless it is there or none is left to try.

        A call does so too; but it may come within a mode of torch functions, which blinds torch.fx.
        """
        while self._proof is None and self._layouts:
            restore = generators_now()  # the model's forward may draw
            copy = fast_copy(self.model, channels_last=self._layouts.pop(0))
            restore()
            if copy is None:
                self._layouts = []
            else:
                self._proof = Proof(self.model, copy)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K) float32, finite where a class is masked.

        Raises UnlikeError where the search must begin again, and NonFiniteLogitsError.
        """
        self.get_ready()
        self.asked = True
        if self._proof is None:
            return self._in_parts(x)
        try:
            logits = self._proof.ask(x)
        except Exception as error:  # whatever a copy can run into
            if is_out_of_memory(error):
                raise
            self._mislead()
            raise UnlikeError("the fast copy of a model differs from it") from error
        return _settled(logits, x)

    def narrow(self, images: int) -> int:
        """Ask about half as many images at once, without a copy; return how many, 0 for no fewer.

        `images` is how many were asked about when there was no room.
        """
        now = min(self._most or images, images)
        if now <= 1:
            return 0
        self._most = -(-now // 2)
        self.stay_plain()
        return self._most

    def _in_parts(self, x: Tensor) -> Tensor:
        """Ask the model, about as many images at once as there is room for.

        Of more, the activations are computed again for the gradient, part by part.
        """
        if self._most is None or len(x) <= self._most:
            return self._plain(x)
        parts = torch.split(x, self._most)
        if torch.is_grad_enabled() and x.requires_grad:
            return torch.cat([again_on_the_way_back(self._plain, part) for part in parts])
        return torch.cat([self._plain(part) for part in parts])

    def _plain(self, x: Tensor) -> Tensor:
        return _settled(read_logits(self.model(x), len(x)), x)

    def _mislead(self) -> None:
        self._proof, self.misled = None, True


def _settled(logits: Tensor, x: Tensor) -> Tensor:
    """Return logits as attacks see them; one look at them is all where there is nothing to do."""
    logits = kept(logits, x)
    return logits if are_all_in_play(logits) else without_masks(answered(logits, x))


class Trial:
    """A search on fast copies, batch by batch, run again without those that turn out to differ.

    Each copy proves itself on the first batch that asks for it.
    """

    def __init__(self, models: Sequence[Searched] = ()) -> None:
        self._models = list(models)
        for one in self._models:
            one.prove_anew()

    def add(self, model: nn.Module) -> Searched:
        """Return another model as this search asks it."""
        self._models.append(Searched(model))
        return self._models[-1]

    @property
    def kind(self) -> Kind:
        """What the last batch asked."""
        return joint(one.kind for one in self._models)

    def run(self, search: Callable[[], T], start_over: Callable[[], object]) -> T:
        """Return what `search` finds on a batch; `start_over` is called before it runs once more.

        The buffers of the models, and the generators before another run, come back as they were.
        """
        while True:
            restore = generators_now()
            for one in self._models:
                if one.asked:
                    one.get_ready()
                one.asked = one.misled = False
            try:
                with ExitStack() as undo:
                    for one in self._models:
                        keep_buffers(one.model, undo)
                    found = search()
            except Exception as error:
                if is_out_of_memory(error) or not self._was_misled(error):
                    raise
            else:
                if not self._was_misled():
                    return found
            restore()
            start_over()

    def _was_misled(self, error: Exception | None = None) -> bool:
        """Settle; whatever a model is said to have done on copies, it is to do without them."""
        for one in self._models:
            one.settle()
        misled = any(one.misled for one in self._models)
        told = isinstance(error, SatbenchError) and not isinstance(error, ModelError)
        if misled or error is None or told:
            return misled
        copies = [one for one in self._models if one.kind == "folded"]
        for one in copies:
            one.stay_plain()
        return bool(copies)
