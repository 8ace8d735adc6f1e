"""Text for each kind of output, escaped so that names from files have no effect."""
