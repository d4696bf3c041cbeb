"""Leases: what a holder has, and how it ends."""
