"""What a run asks of the machine that it is on: energy, memory, and how many images at once."""
