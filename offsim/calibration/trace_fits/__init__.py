"""What recorded traces determine of a profile."""
