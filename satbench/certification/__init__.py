"""Certification: sound lower bounds of a network's margins, their proofs, and a check of proofs."""
