"""SPR: spread and spectrum against the same role in the other blocks."""
