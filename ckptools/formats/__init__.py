"""Open: one file per container, from bytes to an inert tree with lazy tensors."""
