"""The code blocks of a markdown page: which run, in what order, and what they should print.

Blocks of a page run in order, in one folder.  What the reader sees decides what runs:

- ```python runs; where its first line is a file's name, `# photos.py`, it is written to that file.
- ```sh runs in bash, but for lines with a comment `# needs …` or `# takes …`, and those that call
  make, pip or pytest.  A comment like that on a line of its own is for the whole block.
- ```text behind either is what it prints; `…` stands for anything, and times are not compared.
- ```python with `# needs …` on its first line does not run.

Hidden comments set a page up: `<!-- setup`, code of Python, `-->`; and `<!-- slow -->` before a
block of Python moves the page's Python to the slow tests.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from satbench.cli import cli

ROOT = Path(__file__).parents[1]
GENERATED = ("docs/models/*.md", "docs/studies/*.md", "docs/benchmarks.md", "docs/robustbench.md")
LANGUAGES = ("", "python", "sh", "text", "toml", "json", "bibtex", "dockerfile")
"""Those that a block may have; none for a drawing."""

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>[^\n]*)\n(?P<text>.*?)^ *(?P=fence) *$"
    r"|^<!-- (?P<hidden>setup|slow)\b\n?(?P<hidden_text>.*?)-->",
    re.DOTALL | re.MULTILINE,
)
_NOT_HERE = ("make ", "pip ", "torchrun ", "python -m pytest ")
_NEEDS = re.compile(r"#\s*(needs|takes)\b")
_FILE = re.compile(r"# ([\w-]+\.py)\n")
_INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )?(?:torchrun [^`]*?-m )?satbench [^`]+)`")


@dataclass(frozen=True)
class Block:
    """A block of code: its language (`setup` and `slow` for hidden ones), text and place."""

    language: str
    text: str
    line: int
    expected: str | None = None

    @property
    def needs_more(self) -> bool:
        """Whether a comment says that it needs what a test does not have."""
        return any(line.startswith("#") and _NEEDS.match(line) for line in self.text.splitlines())

    @property
    def file(self) -> str | None:
        """The file that it is the text of."""
        named = _FILE.match(self.text)
        return named[1] if named else None

    def runnable(self) -> str:
        """Return what of a block of sh is run."""
        if self.needs_more:
            return ""
        lines = _joined(self.text)
        return "\n".join(
            line for line in lines if not _NEEDS.search(line) and not line.startswith(_NOT_HERE)
        )


def pages(generated: bool = True) -> list[Path]:
    """Return the pages that people read, those that are generated too unless told otherwise."""
    found = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    made = {path for pattern in GENERATED for path in ROOT.glob(pattern)}
    return [path for path in found if generated or path not in made]


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of a page in order; one of text belongs to the block before it."""
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["hidden"]:
            found.append(Block(match["hidden"], match["hidden_text"], line))
            continue
        indent = len(match["indent"])
        body = "".join(row[indent:] or "\n" for row in match["text"].splitlines(keepends=True))
        language = match["language"].strip()
        if language == "text" and found and not text[end : match.start()].strip():
            found[-1] = Block(found[-1].language, found[-1].text, found[-1].line, body)
        else:
            found.append(Block(language, body, line))
        end = match.end()
    return found


def commands_of(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of satbench that a page shows, inline or in a block."""
    for block in blocks_of(text):
        if block.language == "sh":
            for line in _joined(block.text):
                yield from _commands(line)
    for match in _INLINE.finditer(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        yield from _commands(match[1])


def check_command(words: Sequence[str]) -> None:
    """Raise click.ClickException for an unknown command or option."""
    command: click.Command = cli
    context = click.Context(cli, info_name="satbench")
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest[0]
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            return  # a placeholder
        found = command.get_command(context, name)
        if found is None:
            if command.invoke_without_command or command is not cli:
                break
            raise click.UsageError(f"no command {' '.join(words)}")
        command, rest = found, rest[1:]
        context = click.Context(command, info_name=name, parent=context)
    rest = [re.sub(r"=.*", "", word) if word.startswith("--") else word for word in rest]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    for word in rest:
        if word.startswith("--") and word not in {*known, "--help"}:
            raise click.NoSuchOption(word, ctx=context)


def as_expected(expected: str, printed: str) -> bool:
    """Whether what a block printed is what the page shows, times and `…` apart."""
    lines = [_timeless(line) for line in expected.splitlines() if line.strip()]
    found = iter([_timeless(line) for line in printed.splitlines() if line.strip()])
    return all(line == "…" or any(_fits(line, other) for other in found) for line in lines)


def _fits(shown: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in shown.split("…"))
    return re.fullmatch(pattern, printed) is not None


def _timeless(line: str) -> str:
    line = re.sub(r"(\d+ min )?\d+(\.\d+)? s\b", "TIME", line)
    return re.sub(r"[─\s]+", " ", line).strip()


def _joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def _commands(line: str) -> Iterator[list[str]]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return
    while words and (re.match(r"[A-Z_]+=", words[0]) or words[0].endswith("/satbench")):
        words = words[1:] if "=" in words[0] else ["satbench", *words[1:]]
    if words[:1] == ["torchrun"] and "satbench" in words:
        words = words[words.index("satbench") :]
    if words[:1] == ["satbench"]:
        end = next((k for k, word in enumerate(words) if word in ("|", ";", "&&", ">")), None)
        yield words[1:end]
