"""Ranks of a training job on a node: what a scheduler may command, and the ZeRO-3 passes."""
