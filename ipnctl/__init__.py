"""ipnctl: the command line. Thin: each command parses, calls ``ipn``, and prints."""
