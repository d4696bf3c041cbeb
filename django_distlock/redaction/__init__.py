"""Keep secrets out of error messages and tracebacks."""
