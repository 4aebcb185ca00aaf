"""What a simulation says, by name: records, limits, utilisation, verdict, comparison."""
