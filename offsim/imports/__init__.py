"""Scenarios from files that users already have: DeepSpeed's, accelerate's and the Trainer's configuration, a model's."""
