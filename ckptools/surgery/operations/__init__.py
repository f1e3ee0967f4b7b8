"""One file per operation: from a checkpoint and parameters to a plan."""
