"""Callers in sync and async code, how they call a store, and what runs in the background."""
