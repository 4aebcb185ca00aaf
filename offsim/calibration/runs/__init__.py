"""Fits of a profile's constants to measured runs: of one's own, and by recipes."""
