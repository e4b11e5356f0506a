"""From the float model to integers, and the only forward pass the codec may use."""
