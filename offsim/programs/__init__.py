"""What is computed: a transformer's kernels and sizes, and the training iteration."""
