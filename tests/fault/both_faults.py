"""Kill a command and let the disk fail under it, both in one process that imports torch once.

    python tests/fault/both_faults.py [--sample N] [--json FILE] [COMMAND ...]

The parts are those of kill_points.py and disk_faults.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import disk_faults
import kill_points


def examine(name: str, sample: int, made: Path) -> dict[str, Any]:
    """Kill one command, then let the disk fail in it, `sample` times each; return both counts."""
    kill = kill_points.examine(name, sample, made)
    disk = disk_faults.examine(name, sample, made)
    return {**kill, "faults": kill["faults"] + disk["faults"], "kill": kill, "disk": disk}


if __name__ == "__main__":
    kill_points.examine_all(__doc__, "kills", examine)
