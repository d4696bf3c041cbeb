"""Stores with a mistake. Each module has apply(), which makes it, in the workers' process."""
