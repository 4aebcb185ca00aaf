"""A recorded trace run again on the engine."""
