"""What a training run saves: checkpoints, the facts of the run, cards, logs."""
