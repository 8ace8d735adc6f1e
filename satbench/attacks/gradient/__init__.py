"""Attacks that climb a loss by gradients of the pixels: PGD, APGD, FAB, MALT, and their parts."""
