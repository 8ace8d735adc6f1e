"""The diagnosis: signs of masked gradients, which make a model look more robust than it is."""
