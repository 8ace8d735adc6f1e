"""How far a run is: its course in passes, and how that is shown on terminals, pipes, notebooks."""
