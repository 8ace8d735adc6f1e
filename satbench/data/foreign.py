"""Say which names of data sets run code or contact a server, for names from a file."""

from __future__ import annotations

from satbench.data._registry import DATASETS


def is_remote(name: str) -> bool:
    """Say whether loading a data set contacts a server, unless the files are here."""
    return name.partition(":")[0].partition("@")[0] == "hf"


def what_loading_does(name: str) -> str:
    """Return what loading a data set does in addition to reading files; empty if nothing.

    >>> what_loading_does("hf:someone/images")
    'ask the Hugging Face Hub for it, unless it is here'
    """
    if is_remote(name):
        return "ask the Hugging Face Hub for it, unless it is here"
    base = name.partition(":")[0].partition("@")[0]
    plugin = DATASETS[base].plugin if base in DATASETS else ""
    return f"run the code of the plug-in {plugin}" if plugin else ""
