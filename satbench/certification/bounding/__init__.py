"""Sound bounds of a network: its steps, its activations, intervals and linear bounds."""
