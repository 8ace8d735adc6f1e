"""Training images: their sources, their order, and their batches."""
