"""Models of a GitHub repository's hubconf.py.  This runs the repository's code.

satbench runs foreign code only if the user trusts it, by the name of the repository.  It does
not use torch's own list of trusted repositories, which trusts everything downloaded once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from satbench.core.errors import SatbenchError
from satbench.core.schema import parse_json
from satbench.core.specs import split_spec
from satbench.models._hub import one_line
from satbench.models._loaded import LoadedModel, describe_module, strangers_code

TRUST = "SATBENCH_TRUST"
"""The environment variable with the trusted repositories, OWNER/REPO, separated by commas."""

_FORM = re.compile(r"^torchhub:([\w.-]+/[\w.-]+)@([^:@\s]+):(.+)$")


@dataclass(frozen=True)
class TorchHub:
    """`torchhub:OWNER/REPO@REF:ENTRY` or `…:ENTRY(name=value,…)`; REF is a tag or a commit."""

    text: str
    repo: str
    ref: str
    entry: str
    arguments: tuple[tuple[str, str], ...]
    dataset: str = ""
    threat: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split the name.  Raises SatbenchError for another form, and without trust."""
        form = _FORM.match(text)
        if not form:
            raise SatbenchError(
                "expected torchhub:OWNER/REPO@REF:ENTRY with a tag or commit as REF, so that the "
                f"code is always the same, got {text!r}"
            )
        repo, ref, spec = form.groups()
        trusted = [one.strip() for one in os.environ.get(TRUST, "").split(",")]
        if repo not in trusted:
            raise SatbenchError(
                f"{text} runs the code of github.com/{repo} on this machine: read it, and if you "
                f"trust it set {TRUST}={repo} in the environment"
            )
        entry, arguments = split_spec(spec)
        return cls(text, repo, ref, entry, tuple(arguments.items()))

    def load(self, classes: int) -> LoadedModel:
        """Download the repository if torch does not have it, and call the entry.

        Its arguments are numbers, true, false, or text.  satbench adds no normalisation, so the
        model must take pixels in [0, 1].  Raises SatbenchError for any error of the repository,
        and if the result is not a module.
        """
        import torch
        from torch import nn

        call = cast(Callable[..., object], torch.hub.load)
        settings = {key: _value(text) for key, text in self.arguments}
        try:
            with strangers_code():
                made = call(
                    f"{self.repo}:{self.ref}",
                    self.entry,
                    trust_repo=True,
                    skip_validation=True,  # the validation would ask GitHub, even for a local copy
                    verbose=False,
                    **settings,
                )
        except Exception as error:  # the repository's code may fail in any way
            said = f"{type(error).__name__}: {one_line(error)}"
            raise SatbenchError(f"{self.text} failed: {said}") from error
        if not isinstance(made, nn.Module):
            raise SatbenchError(
                f"expected {self.text} to return a torch.nn.Module, got {type(made).__name__}"
            )
        made.eval()
        info = describe_module(made, self.text, "torchhub")
        return LoadedModel(made, replace(info, architecture=self.text), None)


def _value(text: str) -> Any:
    try:
        return parse_json(text.lower() if text.lower() in ("true", "false") else text, "value", "")
    except ValueError:
        return text
