"""Calling a user's model: in eval mode, with everything restored afterwards.

Its answer becomes float32 logits, one row per image.
"""
