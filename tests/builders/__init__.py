"""Builders of tiny checkpoints and faults; nothing binary is committed."""
