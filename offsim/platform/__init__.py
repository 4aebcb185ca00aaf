"""Hardware: profiles with the source of each value, and what they are made into."""
