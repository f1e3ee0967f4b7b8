"""KEY: names, ties and stacks that do not fit together."""
