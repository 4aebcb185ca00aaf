"""The fastest setting that fits, and what better hardware would buy."""
