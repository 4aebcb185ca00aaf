"""Programs recorded without times, and run on many machines by one compiled loop."""
