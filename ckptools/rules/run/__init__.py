"""RUN: whether a file would resume as if it had never stopped."""
