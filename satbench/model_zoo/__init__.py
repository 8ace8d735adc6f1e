"""The zoo: cards, weights, and readers for the usual checkpoint layouts.

A new entry is one card in `model_zoo/cards/` and its weights in `model_zoo/weights/`.
"""
