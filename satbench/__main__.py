"""Run the command line with `python -m satbench`."""

import os
import sys

# `python -m` puts the current folder on the import path.  A folder may hold a stranger's files,
# such as a click.py: it is on the path only while a factory of one's own is asked for by name.
if sys.path and os.path.realpath(sys.path[0] or ".") == os.path.realpath("."):
    del sys.path[0]

from satbench.cli import main

main()
