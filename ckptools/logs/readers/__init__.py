"""One file per log format; each is found by lying here."""
