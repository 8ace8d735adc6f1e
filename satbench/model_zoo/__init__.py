"""The zoo: cards, weights, and checkpoints in the layouts that people save.

A new entry is one card in `model_zoo/cards/` and its weights in `model_zoo/weights/`.
"""
