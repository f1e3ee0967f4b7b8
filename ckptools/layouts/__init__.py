"""Open: one file per framework, from an inert tree to weights, optimizers and run state."""
