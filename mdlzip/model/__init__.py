"""Float transformer, used for training only; the codec never runs it."""
