"""Scenarios from files that users have: configurations of DeepSpeed, accelerate and the Trainer, and a model's."""
