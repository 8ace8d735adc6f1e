"""Characters that act instead of being seen: control codes, marks of direction, joiners."""

from __future__ import annotations

import unicodedata

_ACTIVE = {
    "Cc",  # control codes: escape, bell, backspace, carriage return, …
    "Cf",  # marks of writing direction, joiners, soft hyphens, byte order marks, tags
    "Cs",  # halves of a surrogate pair, which no file can hold
    "Zl",  # line separator
    "Zp",  # paragraph separator
}


def visible(text: str, *, keep: str = "") -> str:
    r"""Return text whose active characters are written out, as Python writes them in a string.

    Those in `keep` stay, such as the ends of lines where the text has lines of ours.

    >>> visible("net\x1b[31m\u202etxt")
    'net\\x1b[31m\\u202etxt'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in _ACTIVE and letter not in keep
        else letter
        for letter in text
    )
