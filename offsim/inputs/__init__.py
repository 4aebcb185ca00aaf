"""Reading what users write: YAML with lines, checked fields, errors that point, files written aside."""
