"""A fuzzer of archives that knows their fields: `python -m tests.fuzz --minutes N --seed S`.

Mutants get right checksums, so what lies behind those is reached; the second decoder is the oracle.
"""
