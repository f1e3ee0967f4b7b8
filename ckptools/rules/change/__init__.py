"""CHG: what moved between checkpoints, and cannot have or should not have."""
