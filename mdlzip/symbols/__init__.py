"""What the network predicts: the byte values of a file, and frequent strings as one symbol each.

Normative: `layout` (groups and chunks) and `vocabulary` (alphabet and merges). The encoder's
choice: `learn` (which merges), `tokenise` (which symbols stand for the bytes). The two passes over
a file: `survey`, `tokens`.
"""
