"""Run the command line with `python -m satbench`."""

from satbench.cli import main

main()
