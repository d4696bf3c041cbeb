"""Threads, tasks and processes: who calls, and where a store is asked."""
