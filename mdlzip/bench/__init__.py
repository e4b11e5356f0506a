"""Baselines and the comparison table."""
