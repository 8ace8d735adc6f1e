"""Files of the Hugging Face Hub, fetched or from its cache."""

from __future__ import annotations

from pathlib import Path

from satbench.core.errors import SatbenchError


def hub_file(repo: str, name: str, revision: str = "") -> Path | None:
    """Return a file of a repository, fetched if it is not in the hub's cache.

    None where the repository has no such file, and where that cannot be asked and the cache has
    it not.  Raises SatbenchError where there is no such repository, or none that may be read.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, revision=revision or None))
    except EntryNotFoundError:  # or, its subclass, that the network is away
        return None
    except (OSError, ValueError) as error:
        raise SatbenchError(f"{repo} cannot be fetched from the hub ({one_line(error)})") from None


def one_line(error: Exception) -> str:
    """Return the beginning of what an error says, without its line breaks."""
    return " ".join(str(error).split())[:300]
