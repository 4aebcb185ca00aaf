"""Every combination of many values, as one table."""
