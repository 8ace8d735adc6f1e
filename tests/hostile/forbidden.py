"""Run commands with foreign code, sockets and new processes forbidden: JSON in, JSON out.

It is a separate program because an audit hook cannot be removed.  It reads a list of command lines
from stdin (a list that begins with `python` holds code to execute), and writes for each the exit
code, stdout, stderr, and the forbidden actions that it tried.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import sysconfig
import time
import traceback
from functools import cache
from pathlib import Path
from types import CodeType

import satbench
from satbench import cli
from satbench.data import fashion_mnist

ROOTS = tuple(
    str(Path(one).resolve())
    for one in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(satbench.__file__).parent),
        *(one for one in sys.path if one.endswith(("site-packages", "dist-packages"))),
    }
)
PROCESSES = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn")
tried: list[str] = []


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Forbid sockets, new processes, and the code of modules that are not installed."""
    if event.startswith("socket.") or event in (*PROCESSES, "subprocess.Popen", "webbrowser.open"):
        _forbid(f"{event} {arguments[:2]!r}")
    if event == "exec" and isinstance(code := arguments[0], CodeType):
        file = code.co_filename
        is_ours = file.startswith("<") or str(Path(file).resolve()).startswith(ROOTS)
        if not is_ours:
            _forbid(f"the code of {file}")


def _forbid(what: str) -> None:
    tried.append(what)
    raise PermissionError(f"forbidden: {what}")


def run(words: list[str]) -> dict[str, object]:
    """Run one command line, or Python code."""
    tried.clear()
    began = time.process_time()
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if words[0] == "python":
                exec(compile(words[1], "<test>", "exec"), {"satbench": satbench})
            else:
                sys.argv = words
                cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        except satbench.SatbenchError as error:
            err.write(f"satbench: {error}\n")
            code = 2
        except BaseException:
            err.write(traceback.format_exc())
            code = -1
    told = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "tried": list(tried)}
    return {**told, "seconds": time.process_time() - began}


if __name__ == "__main__":
    lines = json.load(sys.stdin)
    fashion_mnist.read_folder = cache(fashion_mnist.read_folder)  # unpacked once
    sys.path[:] = [one for one in sys.path if one != str(Path(__file__).parent)]
    first = run(lines[0])  # a harmless command: imports of libraries do such things too
    sys.addaudithook(watch)
    sys.stdout.write(json.dumps([first, *(run(words) for words in lines[1:])]) + "\n")
