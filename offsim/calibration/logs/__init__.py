"""Logs of training runs, as rows of the measured-runs table."""
