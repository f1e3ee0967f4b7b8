"""Judge: one file per rule, one folder per family, from evidence to findings."""
