"""The dedicated process that keeps locks in its memory, and the table that it serves."""
