"""Look-up of models and data sets that a file names, only among those known here.

A record, a board or a suite may come from anybody.  A name in it can be any text, and many texts
would run code or contact a server (`package.module:factory`, `robustbench:…`).  So a name is looked
up in the shipped zoo and in the user's zoo, by name and by the digest of the weights.  Anything
else that it means happens only if the user of this machine asks for it, with `--model` or
`--trust`.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection

from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.data.foreign import what_loading_does
from satbench.model_zoo.card import card_of_digest, find_card, user_names, zoo_names
from satbench.models import FILE_ENDINGS, MODELS, SOURCES, ModelRequest, request_model


def request_known(
    name: str, digest: str, trusted: Collection[str] = (), *, ways: str = ""
) -> ModelRequest:
    """Return the model that a file calls `name` and whose weights have `digest`, if known here.

    The models of the shipped zoo and of the user's zoo are known, by name, else by `digest`.  A
    name among `trusted` means what it means for `--model`.  Nothing is imported or downloaded here.
    `ways` says how the user can ask for another model; the default is `--trust NAME`.

    Raises UnknownNameError for a name that means nothing.  Raises SatbenchError, which says what
    the name would do, for any other name.
    """
    if name in trusted:
        return request_model(name)
    own = name
    if name not in zoo_names() and name not in user_names():
        card = card_of_digest(digest) if digest else None
        if card is None:
            raise _unknown(name, digest, ways)
        own = card.name
    card, weights = find_card(own)
    if card.url and not weights.is_file():
        raise _refused(name, f"download its weights from {card.url}", ways)
    return ModelRequest(own, "zoo" if own in zoo_names() else "user-zoo", card, weights)


def _unknown(name: str, digest: str, ways: str) -> SatbenchError:
    would = what_it_does(name)
    if not would:
        return UnknownNameError("model", name, [*zoo_names(), *user_names(), *MODELS.names()])
    known = f" by its weights {digest[:12]}…" if digest else ""
    return _refused(name, would, ways, f", which is unknown here{known}")


def _refused(name: str, would: str, ways: str, why: str = "") -> SatbenchError:
    ways = ways or f"give --trust {shlex.quote(name)}"
    return SatbenchError(
        f"a file names the model {name!r}{why}; satbench would have to {would}, and does not do "
        f"so for a name in a file: if you want it, {ways}"
    )


def what_it_does(name: str) -> str:
    """Return what using `name` as the name of a model would do; empty if it means nothing.

    >>> what_it_does("evil:make")
    'import the module evil and call make() in it'
    """
    prefix, colon, rest = name.partition(":")
    if colon and rest and prefix in SOURCES:
        entry = SOURCES[prefix]
        if entry.plugin:
            return f"run the code of the plug-in {entry.plugin}"
        return _OF_A_SOURCE.get(prefix, f"ask the servers of {prefix}")
    if name in MODELS:
        return f"run the code of the plug-in {MODELS[name].plugin}"
    if name.partition("#")[0].endswith((".json", *FILE_ENDINGS)) or ("/" in name and not colon):
        return f"read the file {name.partition('#')[0]}"
    if colon and prefix and rest and "/" not in prefix:
        return f"import the module {prefix} and call {rest}() in it"
    return ""


_OF_A_SOURCE = {
    "robustbench": "download its weights from RobustBench's servers, unless they are here",
    "torchvision": "download its weights from PyTorch's server, unless they are here",
    "timm": "download its weights from the Hugging Face Hub, unless they are here",
    "hf": "download its weights from the Hugging Face Hub, unless they are here",
    "torchhub": "download the code of a GitHub repository and run it",
}


def refuse_foreign(name: str) -> None:
    """Raise SatbenchError for a data set that comes from a server or from code."""
    would = what_loading_does(name)
    if would:
        raise SatbenchError(
            f"a file names the data set {name!r}; satbench would have to {would}, and does not do "
            f"so for a name in a file: if you want it, give --dataset {shlex.quote(name)} or "
            f"--trust {shlex.quote(name)}"
        )
