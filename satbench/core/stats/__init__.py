"""Statistics: intervals, tests, and what is shown."""
