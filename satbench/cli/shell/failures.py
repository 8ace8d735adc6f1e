"""How a command reports a failure: one sentence on stderr, or JSON on stdout with --json."""

from __future__ import annotations

import errno
import json
import os
import sys

import click

from satbench.core.errors import UnknownNameError
from satbench.core.text.terminal import one_line, tell

STOPPED = "stopped; give the same command again to continue"

_ADVICE = {
    errno.ENOSPC: "free some space, or choose another folder with --out",
    errno.EDQUOT: "free some space, or choose another folder with --out",
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.EROFS: "choose another path, such as with --out",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
    errno.EISDIR: "give the path of a file",
    errno.EEXIST: "choose another path, or move what is there",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: "allow more open files with `ulimit -n`, or give fewer --workers",
    errno.ENFILE: "close other programs, or give fewer --workers",
    errno.ENOMEM: "give a smaller --batch-size, or fewer --workers",
    errno.EIO: "check the disk, or choose another path",
}


def report(error: BaseException, as_json: bool) -> None:
    """Print what went wrong: as a sentence for a person, or as JSON for a program."""
    kind, message = _kind(error), sentence(error)
    if as_json:
        tell(json.dumps({"error": {"kind": kind, "message": message}}, indent=2))
    else:
        tell(f"satbench: {one_line(message)}", err=True)


def sentence(error: BaseException) -> str:
    """Return what went wrong and what to do, in one line."""
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return STOPPED
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, OSError):
        return _of_the_system(error)
    return str(error)


def wants_json() -> bool:
    """Whether the command line has --json; this works even if it cannot be parsed."""
    words = sys.argv[1:]
    return "--json" in words[: words.index("--") if "--" in words else None]


def _kind(error: BaseException) -> str:
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "stopped"
    if isinstance(error, click.ClickException):
        return "usage"
    if isinstance(error, UnknownNameError):
        return "unknown name"
    return "system" if isinstance(error, OSError) else "mistake"


def _usage(error: click.ClickException) -> str:
    message = error.format_message()
    if isinstance(error, click.MissingParameter):
        message = " ".join(message.split())  # click gives each choice a line of its own
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption):
        known = [name for one in context.command.params for name in one.opts] if context else []
        message = str(UnknownNameError("option", error.option_name, [*known, "--help"]))
    message = message[:1].lower() + message[1:].rstrip(".")
    if context is None or "did you mean" in message:
        return message
    return f"{message}; see {context.command_path} --help"


def _of_the_system(error: OSError) -> str:
    if error.errno is None:
        return str(error) or type(error).__name__
    said = (error.strerror or os.strerror(error.errno)).lower()
    where = f": {os.fspath(error.filename)!r}" if isinstance(error.filename, str | bytes) else ""
    advice = _ADVICE.get(error.errno)
    if isinstance(error, ConnectionError | TimeoutError):
        advice = "check the network, then give the same command again"
    return f"{said}{where}" + (f"; {advice}" if advice else "")
