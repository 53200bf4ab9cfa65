"""The one training loop, optimizers and checkpoints."""
