"""Many scenarios: what is the best of them, and what decides."""
