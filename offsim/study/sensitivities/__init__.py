"""How the times of an iteration depend on each value of its hardware."""
