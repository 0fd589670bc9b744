"""Training: the loop, optimizers, schedules, checkpoints, and the run directory that holds the whole truth."""
