"""The tenants, and their hosts."""

from django_tenants.models import DomainMixin, TenantMixin


class Tenant(TenantMixin):  # type: ignore[misc]
    """A tenant, which has a schema."""

    def __str__(self) -> str:
        return str(self.schema_name)


class Domain(DomainMixin):  # type: ignore[misc]
    """A host name of a tenant."""

    def __str__(self) -> str:
        return str(self.domain)
