"""Shared basics: threat models, specs, registries, errors, per-image noise, digests, files.

Nothing here imports torch or another room, so every room may import it.
"""
