"""Locked views: the decorator, and what it answers."""
