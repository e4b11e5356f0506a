"""Command line: words, colours and exit codes only."""
