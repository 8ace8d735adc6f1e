"""Evaluations: options, identity, the checks before a run, the run, and the record."""
