"""From measurements to the constants of a hardware profile."""
