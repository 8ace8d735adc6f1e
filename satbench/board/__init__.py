"""Boards: definitions, rows, rankings, tables and pages, from records only.  No torch."""
