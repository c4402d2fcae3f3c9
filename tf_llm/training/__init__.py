"""The training loop: optimisers, devices, checkpoints, progress."""
