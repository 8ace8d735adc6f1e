"""Robust accuracy from below: sound bounds of a network's margins, proofs, and their check."""
