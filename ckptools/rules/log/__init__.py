"""LOG: what the figures of a training log say about each other."""
