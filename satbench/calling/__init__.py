"""How a user's model is called: borrowed in eval mode, and handed back as it came.

Its answer becomes one float32 row of logits an image.
"""
