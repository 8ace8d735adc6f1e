"""Draw docs/eval.svg, the picture of the README, from published records.

python docs/picture.py
"""

from pathlib import Path

from rich.console import Console

from satbench.board.publish import published_records
from satbench.evaluation.report import table_of

SHOWN = ("fmnist-sat-tiny-relu-s1", "fmnist-sat-tiny-silu-s1")


def main() -> None:
    """Write the picture."""
    found = published_records()
    records = [r for r in found if r.model.name in SHOWN and len(r.suite) == 2]
    command = " ".join(f"--model {name}" for name in SHOWN)
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=106, file=nowhere)
        console.print(f"$ satbench eval {command} --n-examples 500", highlight=False)
        console.print(table_of(records))
        console.save_svg("docs/eval.svg", title="satbench")


if __name__ == "__main__":
    main()
