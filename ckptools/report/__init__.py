"""Show: neutral blocks to one file per medium."""
