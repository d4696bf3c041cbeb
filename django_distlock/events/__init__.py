"""The recorded events of locks, for a store with "events": True: see docs/reference/events.md."""
