"""What names mean: wrapper prefixes, stacks and blocks, roles, initialisers, name patterns."""
