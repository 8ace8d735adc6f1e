"""Preflight: what is asked of images and of a model before an attack runs."""
