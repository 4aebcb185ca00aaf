"""What a prediction depends on, and how sure it is."""
