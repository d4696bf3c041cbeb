"""Acquire and release."""
