"""One file per framework; lying here is enough to be found."""
