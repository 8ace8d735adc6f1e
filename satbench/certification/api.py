"""The Python interface: `satbench.certify(...)`."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import SupportsFloat, Unpack

from torch import Tensor

from satbench.calling.devices import device_of
from satbench.calling.function import Function
from satbench.calling.generators import own_generators
from satbench.certification.run import (
    CertificationPlan,
    Certified,
    certify_config,
    certify_model,
)
from satbench.core.console import progress_of, say
from satbench.core.errors import SatbenchError
from satbench.core.files import check_folder
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.evaluation.arguments import check_arguments, checked_model, plain_number
from satbench.evaluation.config import eval_config, first_examples
from satbench.models import FileKeywords, FileOptions, describe_module
from satbench.preflight.reading import Images, Labels, Loader, images_given

DEFAULT_METHOD, DEFAULT_SECONDS = "alpha-crown", 60.0


def certify(
    model: Callable[[Tensor], object] | str,
    x: Images | Loader | str | None = None,
    y: Labels | None = None,
    *,
    eps: str | SupportsFloat | None = None,
    norm: str | None = None,
    method: str = DEFAULT_METHOD,
    seconds: float | None = DEFAULT_SECONDS,
    n_examples: int | None = None,
    out: str | PathLike[str] = "results/certificates",
    name: str | None = None,
    fresh: bool = False,
    progress: bool = True,
    **file: Unpack[FileKeywords],
) -> Certified:
    """Certify images that no adversary can break, and return the certificate.

    `model`, `x`, `y`, `eps`, `norm`, `n_examples`, `name`, `file` and `progress` are as for
    `satbench.evaluate`.  Each image goes through the methods up to `method`, the cheapest first:
    `"ibp"`, `"crown-ibp"`, `"crown"`, `"alpha-crown"`, `"bab"`, for at most `seconds`.  No image
    that the judge allows breaks a certified image, for any attack; an image that is not certified
    may be robust too. docs/how-to/certify.md says which networks can be bounded, and what is known
    about rounding.

    The certificate and its proofs are written to the folder `out`.  A stopped certification
    continues there, and the certificate of the same inputs is found there, unless `fresh`.
    `satbench.verify` checks the proofs.

    Raises SatbenchError, a ValueError, with one clear sentence for a wrong set-up, and for a layer
    without known bounds.

    >>> import satbench
    >>> found = satbench.certify(
    ...     "fmnist-sat-tiny-relu-s0", eps="0.001", method="crown-ibp", n_examples=2, out=tmp
    ... )
    >>> found.certified_accuracy <= found.clean_accuracy
    True
    """
    if unknown := file.keys() - FileKeywords.__annotations__:
        raise TypeError(f"certify() got an unexpected keyword argument {min(unknown)!r}")
    check_arguments(
        norm=norm,
        eps=eps,
        method=method,
        seconds=seconds,
        n_examples=n_examples,
        out=out,
        name=name,
        fresh=fresh,
        progress=progress,
    )
    check_folder(Path(out))
    radius = None if eps is None else plain_number(eps)
    limit = None if seconds is None else float(seconds)
    if isinstance(model, str):
        data = None if x is None or isinstance(x, str) else images_given(x, y, n_examples)
        config = eval_config(
            model,
            file=FileOptions(**file),
            dataset=data.name if data else None if x is None else str(x),
            own_images=data is not None,
            norm=norm,
            eps=radius,
            n_examples=None if n_examples is None else int(n_examples),
            out=Path(out),
            fresh=fresh,
        )
        with progress_of(model, progress) as told:
            return _said(certify_config(config, method, limit, told, images=data))
    if file:
        raise SatbenchError(f"{', '.join(file)}: these are for a file of weights by its name")
    if radius is None:
        raise SatbenchError("expected eps, the radius of the adversary, such as eps='1/255'")
    module = checked_model(model)
    threat = Threat.of("linf" if norm is None else norm, radius)
    plan = CertificationPlan(_images(x, y, n_examples), threat, method, limit)
    title = name or (module.name if isinstance(module, Function) else type(module).__name__)
    info = describe_module(module, title, "python")
    with progress_of(title, progress) as told, own_generators(device_of(module), 0):
        return _said(certify_model(module, info, plan, Path(out), told, fresh))


def _said(done: Certified) -> Certified:
    if done.found:
        made = done.certificate.environment.finished
        say(f"satbench: found {done.path}, made {made}: nothing was run; fresh=True runs it again")
    return done


def _images(x: Images | Loader | str | None, y: Labels | None, n_examples: int | None) -> Dataset:
    if isinstance(x, str):
        return first_examples(x, n_examples)
    if x is None:
        raise SatbenchError("expected images x and labels y, or the name of a data set as x")
    dataset = images_given(x, y, n_examples)
    return dataset if n_examples is None else dataset.first(n_examples)
