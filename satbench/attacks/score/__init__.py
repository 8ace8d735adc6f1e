"""Attacks that ask for logits and never for a gradient: Square, and what it proposes."""
