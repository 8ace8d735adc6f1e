"""The parts of a training run, one idea a module; `loop` goes round over them."""
