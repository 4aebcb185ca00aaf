"""Pieces of state: where they live, since when copies are valid, and pools and caches that last over iterations."""
