"""Sockets and connection pools of the stores that are servers."""
