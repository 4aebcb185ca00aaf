"""Predicted against measured: tables of measured runs, errors, rankings, series over time, the validation page."""
