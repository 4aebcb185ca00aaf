"""Pictures, traces and tables, all drawn from plain DataFrames.

Nothing is imported here: matplotlib is loaded only by the modules that draw (timeline, memory, bandwidth).
"""
