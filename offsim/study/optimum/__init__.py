"""The best placement and order of updates that a search over the simulator finds, to compare schedules with."""
