"""Experiments with the user's own task, to find out whether it was the checkpoint."""
