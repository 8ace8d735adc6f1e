"""Run the command line with `python -m satbench`."""

import os
import sys

# `python -m` puts the current folder on the import path.  A folder may contain foreign files,
# such as a click.py: it is on the path only while a factory that the user names is imported.
if sys.path and os.path.realpath(sys.path[0] or ".") == os.path.realpath("."):
    del sys.path[0]

from satbench.cli import main

main()
