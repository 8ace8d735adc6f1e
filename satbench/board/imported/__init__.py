"""Rows with numbers that others published: shown on a board's page, apart from its own rows."""
