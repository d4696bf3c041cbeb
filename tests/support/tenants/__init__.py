"""A site of two tenants, by django-tenants."""
