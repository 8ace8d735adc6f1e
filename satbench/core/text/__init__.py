"""Text for each kind of output: names from files are shown there, and do nothing."""
