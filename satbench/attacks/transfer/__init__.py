"""Attacks with images that were made on another model than the target."""
