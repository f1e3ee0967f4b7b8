"""What things are: every frozen type, and nothing that computes."""
