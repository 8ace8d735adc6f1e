"""Files of the Hugging Face Hub and of torch's own cache, fetched where they are not there."""

from __future__ import annotations

import re
from pathlib import Path

from satbench.core.downloads import download, sha256_check
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


def torch_hub_file(url: str) -> Path:
    """Return a file of torch's own cache, fetched there if need be.

    A name such as `resnet50-0676ba61.pth` tells the beginning of its digest, which is checked
    each time.  Raises SatbenchError for another digest, and where it cannot be fetched.
    """
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    check = sha256_check(digest_in_name(path.name))
    if path.is_file():
        check(path)
    return download(url, path, check)


def digest_in_name(name: str) -> str:
    """Return the beginning of a file's digest that its name tells, as torch has it; else nothing.

    >>> digest_in_name("resnet50-0676ba61.pth")
    '0676ba61'
    """
    named = re.search(r"-([0-9a-f]{8,})\.", name)
    return named[1] if named else ""


def one_line(error: Exception) -> str:
    """Return the beginning of what an error says, without its line breaks."""
    return " ".join(str(error).split())[:300]
