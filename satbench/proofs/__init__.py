"""Proofs: check a record, challenge it, merge it with others."""
