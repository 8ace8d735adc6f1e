"""The diagnosis: signs that gradients hide how easily a model is fooled."""
