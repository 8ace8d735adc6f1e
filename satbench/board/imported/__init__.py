"""Rows whose numbers others published: read, shown beside a board, never mixed with its own."""
