"""Results of a simulation: records, limits, utilization, verdict, comparison."""
