"""FIL: the container contradicts itself, is damaged, or names what it should not."""
