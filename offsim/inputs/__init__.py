"""Input: YAML with line numbers, checked fields, errors with positions, atomic writes."""
