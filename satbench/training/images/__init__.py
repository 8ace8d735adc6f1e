"""Training images: where they come from, in which order, and in what batches."""
