"""The progress of a run: its course in passes, and its display on terminals, pipes, notebooks."""
