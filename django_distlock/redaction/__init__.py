"""Keep secrets out of what people read: messages, reprs, tracebacks."""
