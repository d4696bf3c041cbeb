"""The actions of worker processes in tests."""
