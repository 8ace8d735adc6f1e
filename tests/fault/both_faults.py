"""Kill a command and let the disk fail under it, both in one process, which imports torch once.

    python tests/fault/both_faults.py [--sample N] [--json FILE] [COMMAND ...]

The parts are those of kill_points.py and disk_faults.py.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from disk_faults import disturbed
from kill_points import examine_all, killed, undisturbed


def examine(name: str, sample: int, made: Path) -> dict[str, Any]:
    """Kill one command, then let the disk fail in it, `sample` times each; return both counts."""
    with tempfile.TemporaryDirectory() as place:
        base = Path(place).resolve()
        known = undisturbed(name, made, base)
        kill, disk = (do(name, known, sample, base) for do in (killed, disturbed))
    return {**kill, "faults": kill["faults"] + disk["faults"], "kill": kill, "disk": disk}


if __name__ == "__main__":
    examine_all(__doc__, "kills", examine)
