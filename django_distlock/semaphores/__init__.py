"""Semaphores: validation and templates."""
