"""Figures, drawn with the optional package matplotlib."""
