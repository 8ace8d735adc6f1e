"""Preflight: checks of the images and the model before an attack runs."""
