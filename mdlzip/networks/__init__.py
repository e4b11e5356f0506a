"""What networks consist of: families, and for each the tensors and sites of its networks."""
