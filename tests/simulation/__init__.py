"""A universe in one process: the real lock server and its real clients, in virtual time."""
