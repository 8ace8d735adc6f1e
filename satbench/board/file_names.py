"""The names of a board's files, which are in one folder."""

PAGE = "LEADERBOARD.md"

CSV_FILE, JSON_FILE = "leaderboard.csv", "leaderboard.json"
"""The files of all rows with all digits; a page has only the first rows."""
