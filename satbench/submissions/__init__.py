"""Submissions to a board: packing, review without running their code, and acceptance."""
