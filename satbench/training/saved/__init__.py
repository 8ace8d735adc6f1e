"""The files of a training run: checkpoints, the facts of the run, cards, logs."""
