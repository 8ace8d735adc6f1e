"""Statistics: intervals, tests, and which differences are shown."""
