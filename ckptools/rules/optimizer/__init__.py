"""OPT: the optimizer's memory."""
