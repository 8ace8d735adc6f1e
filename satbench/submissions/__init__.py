"""Submissions to a board: packed by who submits, reviewed without running their code, accepted."""
