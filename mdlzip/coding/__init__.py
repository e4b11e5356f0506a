"""Entropy coding: data symbols with a range coder, weights with an adaptive binary coder."""
