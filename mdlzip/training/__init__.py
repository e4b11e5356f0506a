"""From chunks to a trained, pruned, quantisation-aware float model."""
