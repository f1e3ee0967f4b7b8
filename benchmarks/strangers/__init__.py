"""Tasks that the re-run harness was never tuned on, and faults planted in their checkpoints."""
