"""The library twins of the commands: open, measure, judge."""
