"""Metrics and traces of locks, for OpenTelemetry and Prometheus."""
