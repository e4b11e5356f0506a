"""The studies of the paper: code lengths, and (one file each) the experiments behind its tables."""
