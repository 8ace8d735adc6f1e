"""The learning rate as a function of the position in the run."""

from __future__ import annotations

import math

from satbench.recipes import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the rate at `step` of `steps`.

    All schedules rise linearly from `warm_up_start` over the fraction `warm_up` of the run.  Then:

    - `one-cycle`: half a cosine, from the end of the rise down to 0 at the end;
    - `linear`: a straight line down to 0 (Wong et al., 2020, arXiv:2001.03994, section 4.1);
    - `cosine`: half a cosine over the whole run, whose beginning the rise replaces
      (Loshchilov & Hutter, 2017, arXiv:1608.03983, equation 5, without restarts);
    - `step`: the peak, times `factor` from the end of each epoch in `milestones` on;
    - `constant`: the peak.
    """
    peak, warm = config.learning_rate, config.warm_up * steps
    if step < warm:
        start = config.warm_up_start
        return start + (peak - start) * (step + 1) / max(warm, 1)
    if config.schedule == "one-cycle":
        return peak * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
    if config.schedule == "linear":
        return peak * (steps - step) / (steps - warm)
    if config.schedule == "cosine":
        return peak * (1 + math.cos(math.pi * step / steps)) / 2
    if config.schedule == "step":
        epoch = step * config.epochs // steps  # epochs done
        return peak * config.factor ** sum(epoch >= end for end in config.milestones)
    return peak
