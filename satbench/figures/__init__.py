"""Figures, by matplotlib, which is an extra."""
