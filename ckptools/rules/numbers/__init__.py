"""NUM: numbers that no healthy tensor holds."""
