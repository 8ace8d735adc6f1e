"""Text in HTML: names without tags and attributes."""

from __future__ import annotations

import html as standard

from satbench.core.text.characters import visible


def html(text: str) -> str:
    """Return text from a file for an element or a quoted attribute.

    >>> html("<img src=x onerror='alert(1)'>")
    '&lt;img src=x onerror=&#x27;alert(1)&#x27;&gt;'
    """
    return standard.escape(visible(" ".join(text.split())), quote=True)
