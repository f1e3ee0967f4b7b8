"""EXP: what an experiment with the user's own task has shown."""
