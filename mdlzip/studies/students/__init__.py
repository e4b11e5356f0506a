"""Teacher and student: Table 5 and figures 1a, 4 and 5 of the paper."""
