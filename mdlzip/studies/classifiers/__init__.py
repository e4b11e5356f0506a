"""Image classifiers: Tables 1, 2 and 6 of the paper."""
