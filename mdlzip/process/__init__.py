"""The process and its machine: cores, compiled kernels and their cache, memory, environment."""
