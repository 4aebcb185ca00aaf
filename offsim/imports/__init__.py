"""Scenarios from the files that users already have: DeepSpeed's configuration and a Hugging Face model's."""
