"""Attacks that use logits but no gradients: Square and its proposals."""
