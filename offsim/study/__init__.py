"""Many simulations as one study: sweeps, tuning, sensitivities."""
