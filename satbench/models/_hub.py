"""Files of the Hugging Face Hub and of torch's cache, downloaded if missing."""

from __future__ import annotations

import re
from pathlib import Path

from satbench.core.downloads import download, sha256_check
from satbench.core.errors import SatbenchError


def hub_file(repo: str, name: str, revision: str = "") -> Path | None:
    """Return a file of a repository, downloaded if it is not in the hub's cache.

    None if the repository has no such file, or if the hub cannot be reached and the cache does not
    have it.  Raises SatbenchError if the repository does not exist or cannot be read.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, revision=revision or None))
    except EntryNotFoundError:  # or its subclass for a missing network
        return None
    except (OSError, ValueError) as error:
        raise SatbenchError(
            f"{repo} cannot be downloaded from the hub ({one_line(error)})"
        ) from None


def torch_hub_file(url: str) -> Path:
    """Return a file of torch's cache, downloaded if missing.

    A name such as `resnet50-0676ba61.pth` has the first digits of the digest, which is checked
    each time.  Raises SatbenchError for another digest, and if it cannot be downloaded.
    """
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    check = sha256_check(digest_in_name(path.name))
    if path.is_file():
        check(path)
    return download(url, path, check)


def digest_in_name(name: str) -> str:
    """Return the first digits of a file's digest from its name, in torch's form; else nothing.

    >>> digest_in_name("resnet50-0676ba61.pth")
    '0676ba61'
    """
    named = re.search(r"-([0-9a-f]{8,})\.", name)
    return named[1] if named else ""


def one_line(error: Exception) -> str:
    """Return the beginning of an error's message, on one line."""
    return " ".join(str(error).split())[:300]
