"""The shared words: threat models, specs, registries, errors, per-image noise, digests, files.

Nothing in here imports torch or another room of the house, so every room may import it.
"""
