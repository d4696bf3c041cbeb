"""Code as users write it, for type checkers: see tests/project/test_typing.py."""
