"""`python -m mdlzip`: the same as the console script."""

from __future__ import annotations

from mdlzip.cli.app import main

if __name__ == "__main__":
    main()
