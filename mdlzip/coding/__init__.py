"""Entropy coding: data symbols with constriction, weights with an adaptive binary coder."""
