"""Bytes: local and remote files; nothing above knows which."""
