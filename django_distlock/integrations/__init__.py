"""Other libraries: what they show of locks, and how their tasks and errors fit in."""
