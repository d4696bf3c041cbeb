"""Leases: their state, their renewal, and each way in which they end."""
