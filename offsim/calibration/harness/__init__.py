"""Measures a machine: copies, CPU and GPU kernels, and training iterations under offloading schedules.

Users run it as one file, `harness.pyz`, on machines that have PyTorch and nothing of offsim: modules of this package
import PyTorch, the standard library and, relatively, each other. Units are SI (seconds, bytes, elements); a name says
its unit where it is another.
"""
