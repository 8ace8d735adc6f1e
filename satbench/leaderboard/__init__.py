"""The leaderboard: tables computed from records alone.  Same records, same bytes; no torch."""
