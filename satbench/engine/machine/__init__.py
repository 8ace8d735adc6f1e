"""The machine of a run: its energy, its memory, and the best batch size."""
