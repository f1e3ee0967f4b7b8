"""Numbers that the numpy pass and the compiled one share."""

from __future__ import annotations

#: elements of a block of the compiled pass: its values stay in the first-level cache
BLOCK = 4096
#: largest magnitudes within 2**-SAFE .. 2**SAFE are not rescaled
SAFE = 64
#: odd constants of the splitmix64 generator (Steele, Lea & Flood 2014)
GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
#: added to second moments before a square is divided by them, by bytes of the values: twice the
#: smallest normal number, which is what underflow may have taken from them in one step
TINY = {4: 2.0**-125, 8: 2.0**-1021}
