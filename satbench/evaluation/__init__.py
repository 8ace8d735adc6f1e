"""An evaluation: its options, its identity, the checks before it, the run, and the record."""
