"""Proofs: verifying records, challenging them, merging them, and running them again."""
