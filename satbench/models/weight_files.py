"""Files of weights by their path: those that name their network, and those that need options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from satbench.core.errors import SatbenchError
from satbench.model_zoo.card import Card, card_of_digest, card_within, read_card
from satbench.model_zoo.known import card_of_weights, is_safetensors
from satbench.models._file_options import FileOptions
from satbench.models._foreign import build_for
from satbench.models._loaded import LoadedModel, describe_module
from satbench.models.carded import card_info, check_agrees


def card_of_file(text: str, described: bool = False) -> Card | None:
    """Return the card of `PATH` or `PATH#COPY`: the one in the file, else the one with its weights.

    Weights of the shipped models and of the user's zoo are recognised by their digest.  Pickles
    need torch; if the user has `described` the file, they are left to `load_file`.  Raises
    SatbenchError for a malformed card, and for a pickle that cannot be read.
    """
    place, _, copy = text.partition("#")
    path = Path(place)
    if card := card_within(path):
        return card
    return None if described and not is_safetensors(path) else card_of_weights(path, copy)


def card_of_run(folder: Path) -> tuple[Card, Path]:
    """Return the card of a finished run of `satbench train` in its folder, and its weights.

    Raises SatbenchError for another folder, and for an unfinished run.
    """
    cards = [path for path in sorted(folder.glob("*.json")) if path.name != "config.json"]
    stems = {path.stem for path in cards}
    # A run also writes the cards of its best and its last epoch.
    cards = [path for path in cards if _without_epoch(path.stem) not in stems]
    named = [path for path in cards if path.stem == folder.resolve().name]
    if len(found := named or cards) == 1:
        card = read_card(found[0])
        return card, folder / card.weights
    if found:
        shown = ", ".join(path.name for path in found)
        raise SatbenchError(f"the folder {folder} has several cards ({shown}): give one of them")
    if (best := folder / "best.safetensors").is_file():
        raise SatbenchError(
            f"the run in {folder} is not finished: train it to the end, or give the best weights "
            f"so far, {best}"
        )
    raise SatbenchError(
        f"expected the folder of a run of `satbench train` with a card, found no card in {folder}"
    )


def _without_epoch(stem: str) -> str:
    """Return `NAME` of `NAME-best` or `NAME-last`, else an empty text."""
    name, _, epoch = stem.rpartition("-")
    return name if epoch in ("best", "last") else ""


def load_file(text: str, options: FileOptions, classes: int, exactly: bool = True) -> LoadedModel:
    """Build the network that `options` describe and load `PATH` or `PATH#COPY` into it, strictly.

    Unless `exactly`, the file decides how many classes there are, at least `classes`.  What neither
    the file nor the options say is assumed, and listed in `ModelInfo.assumed`.  Raises
    SatbenchError for unknown parts, for weights that are missing, corrupt, unsafe, or that do not
    fit, and if the weights are known to be of another network.
    """
    from satbench.model_zoo.checkpoints import picked, read_state
    from satbench.model_zoo.weights import digest_weights

    place, _, copy = text.partition("#")
    path = Path(place)
    state = picked(read_state(path, copy), options.keys, options.drop_keys, path)
    built = build_for(state, options, path, classes, exactly)
    name = path.stem + (f"#{copy}" if copy else "")
    if known := card_of_digest(digest_weights(built.module)):
        spec = built.architecture.partition(" normalised by ")[0]
        check_agrees(known, FileOptions(spec, built.activation), text)
        return LoadedModel(built.module, card_info(known, "file"), known)
    info = replace(
        describe_module(built.module, name, "file"),
        architecture=built.architecture,
        activation=built.activation,
        assumed=built.assumed,
    )
    return LoadedModel(built.module, info, None)
