"""Microbenchmarks of the harness: reading them, and what they determine."""
