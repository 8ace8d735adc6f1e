"""The parts of a training run, one idea a module; `satbench.train` is the loop over them."""
