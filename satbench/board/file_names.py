"""What the files of a board are called, which stand beside one another."""

PAGE = "LEADERBOARD.md"

CSV_FILE, JSON_FILE = "leaderboard.csv", "leaderboard.json"
"""All rows with all digits; a page has the first ones."""
