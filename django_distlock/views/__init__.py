"""The decorator: locked calls, and the responses of locked views."""
