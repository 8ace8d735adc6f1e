"""The curve of robust accuracy against eps: computation, bounds and report."""
