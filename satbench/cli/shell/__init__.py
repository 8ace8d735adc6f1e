"""What all commands share: their help, how mistakes are reported, completion, signals."""
