"""The model that a search calls: a checked fast copy, else the model itself.

A copy that differs from its model, or fails, is dropped, and the search starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from satbench.calling.borrow import keep_buffers, save_generators
from satbench.calling.logits import (
    ModelError,
    are_all_in_play,
    in_own_memory,
    read_logits,
    without_masks,
)
from satbench.calling.shortage import is_out_of_memory
from satbench.core.errors import SatbenchError
from satbench.engine.bpda import Replaced
from satbench.engine.fast_copy import fast_copy
from satbench.engine.judge import answered
from satbench.engine.machine.asked import Call, Graphed, InexactError, guarded, in_dtype
from satbench.engine.machine.checkpointing import Checkpointed, recomputed
from satbench.engine.machine.ways import FORMS, WAYS, Way
from satbench.engine.proof import Proof, UnlikeError

Kind = Literal["", "folded", "plain", "tf32", "bfloat16", "float16"]
"""What was searched: nothing, only fast copies, an unchanged model, or one in lower precision."""

T = TypeVar("T")


def joint(kinds: Iterable[Kind]) -> Kind:
    """Return what was searched in all: the last of `Kind` that some model was searched as."""
    return max(kinds, key=get_args(Kind).index, default="")


class Searched:
    """A model for searching; calls go to its fast copy as long as that passes its checks.

    `model` is in eval mode, with frozen parameters.  With `replacements` (layer to replacement, see
    `satbench.engine.bpda`) nothing is rewritten, so that the layers keep their places; nor with
    `checkpointing`, which stores less for the gradient.  A copy is made at the first call, in the
    form of the given `way`, or else in the first of `FORMS` that works.  A call returns logits in
    their final form (`reads_itself`), which need no further conversion.  Copies are compared in
    float32, and then called in the given `way`.
    """

    reads_itself = True

    def __init__(
        self,
        model: nn.Module,
        replacements: Mapping[str, nn.Module] | None = None,
        checkpointing: bool = False,
        way: Way = WAYS[0],
    ) -> None:
        self.model = Replaced(model, replacements) if replacements else model
        if checkpointing:
            self.model = Checkpointed(self.model)
        self.asked = self.misled = False
        self.way, self._is_exact = way, False
        copies = [form for form in ([way.form] if way.form else FORMS) if form != "plain"]
        # The forms that are left to try.
        self._layouts = [form == "channels-last" for form in copies]
        if replacements or checkpointing:
            self._layouts = []
        self._most: int | None = None  # the most images in one call of the model
        self._proof: Proof | None = None

    def forget_checks(self) -> None:
        """Forget all checks of the copy."""
        if self._proof:
            self._proof = replace(self._proof, calls=0, proven=set(), doubts={})

    def settle(self) -> None:
        """End a search: raise if the copy's gradient was wrong at some point and never right."""
        if self._proof and self._proof.is_in_doubt:
            self._mislead()

    def stay_plain(self) -> None:
        """Use no copy from now on."""
        self._layouts, self._proof = [], None

    def stay_exact(self) -> None:
        """Use float32 without graphs from now on; the search must start again."""
        self._is_exact = self.misled = True

    @property
    def may_stay_exact(self) -> bool:
        """Whether that would change anything."""
        return not self._is_exact and (self.way.graph or self.way.dtype is not None)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Use float32 without graphs within the block."""
        before, self._is_exact = self._is_exact, True
        try:
            with WAYS[0].applied():
                yield
        finally:
            self._is_exact = before

    @property
    def kind(self) -> Kind:
        """The kind of model that the current batch of a search called."""
        if not self.asked:
            return ""
        if self.way.precision != "float32" and not self._is_exact:
            return self.way.precision
        return "folded" if self._proof else "plain"

    def get_ready(self) -> None:
        """Make the copy, unless it exists or no layout is left to try.

        A call does this too, but it may be inside a torch function mode, where torch.fx fails.
        """
        while self._proof is None and self._layouts:
            restore = save_generators()  # the model's forward may draw
            copy = fast_copy(self.model, channels_last=self._layouts.pop(0))
            restore()
            if copy is None:
                self._layouts = []
            else:
                self._proof = Proof(self.model, copy, self._quick(copy), self.way.dtype is not None)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K) float32, finite where a class is masked.

        Raises UnlikeError if the search must start again, and NonFiniteLogitsError.
        """
        self.get_ready()
        self.asked = True
        if self._proof is None:
            return self._in_parts(x)
        try:
            logits = self._proof.ask(x)
        except Exception as error:  # any error of the copy
            if is_out_of_memory(error) or isinstance(error, InexactError):
                raise
            self._mislead()
            raise UnlikeError("the fast copy of a model differs from it") from error
        return _settled(logits, x)

    def narrow(self, images: int) -> int:
        """Halve the images of one call, without a copy; return how many, 0 if it cannot be fewer.

        `images` is how many there were when memory ran out.
        """
        now = min(self._most or images, images)
        if now <= 1:
            return 0
        self._most = -(-now // 2)
        self.stay_plain()
        return self._most

    def _in_parts(self, x: Tensor) -> Tensor:
        """Call the model on as many images at once as fit into memory.

        If there are more, the activations are recomputed for the gradient, part by part.
        """
        if self._most is None or len(x) <= self._most:
            return self._plain(x)
        parts = torch.split(x, self._most)
        if torch.is_grad_enabled() and x.requires_grad:
            return torch.cat([recomputed(self._plain, part) for part in parts])
        return torch.cat([self._plain(part) for part in parts])

    def _plain(self, x: Tensor) -> Tensor:
        return _settled(self._in_way(self._asked_plainly)(x), x)

    def _asked_plainly(self, x: Tensor) -> Tensor:
        return read_logits(self.model(x), len(x))

    def _in_way(self, call: Call, graph: bool = False) -> Call:
        """Return `call` in the way of this search."""
        dtype = None if self._is_exact else self.way.dtype
        cast = in_dtype(call, dtype) if dtype else call
        quick = Graphed(cast) if graph and not self._is_exact else cast
        return guarded(quick, dtype) if dtype else quick

    def _quick(self, copy: nn.Module) -> Call | None:
        """Return the call of a copy in the way of this search; None if it has none of its own."""
        if not self.may_stay_exact:
            return None

        def plainly(x: Tensor) -> Tensor:
            return read_logits(copy.forward(x), len(x))

        quickly = self._in_way(plainly, self.way.graph)
        return lambda x: plainly(x) if self._is_exact else quickly(x)

    def _mislead(self) -> None:
        self._proof, self.misled = None, True


def _settled(logits: Tensor, x: Tensor) -> Tensor:
    """Return logits for attacks; valid finite logits need only one cheap check."""
    logits = in_own_memory(logits, x)
    return logits if are_all_in_play(logits) else without_masks(answered(logits, x))


class Trial:
    """A search on fast copies, batch by batch; if a copy differs, the batch runs again without it.

    Each copy is checked on the first batch that uses it.
    """

    def __init__(self, models: Sequence[Searched] = ()) -> None:
        self._models = list(models)
        for one in self._models:
            one.forget_checks()

    def add(self, model: nn.Module) -> Searched:
        """Return another model for this search."""
        self._models.append(Searched(model))
        return self._models[-1]

    @property
    def kind(self) -> Kind:
        """The kind of model that the last batch called."""
        return joint(one.kind for one in self._models)

    def run(self, search: Callable[[], T], start_over: Callable[[], object]) -> T:
        """Return what `search` finds on a batch; `start_over` is called before it runs again.

        The buffers of the models are restored, and before another run the random generators too.
        """
        while True:
            restore = save_generators()
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
        """Return whether a copy misled the search; such a model uses no copy from now on."""
        if isinstance(error, InexactError):
            inexact = [one for one in self._models if one.may_stay_exact]
            for one in inexact:
                one.stay_exact()
            return bool(inexact)
        for one in self._models:
            one.settle()
        misled = any(one.misled for one in self._models)
        explained = isinstance(error, SatbenchError) and not isinstance(error, ModelError)
        if misled or error is None or explained:
            return misled
        copies = [one for one in self._models if one.kind == "folded"]
        for one in copies:
            one.stay_plain()
        return bool(copies)
