"""One update of the weights: noise, attack, objective, step, average."""
