"""Many simulations of one question: what a prediction depends on, and how sure it is."""
