"""The curve of robust accuracy against eps: how it is computed, bounded and reported."""
