"""The dedicated process that keeps locks in its memory, and the lock table that it serves."""
