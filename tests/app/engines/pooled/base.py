"""An engine that connects in its own way, as those of pools for gevent do."""

from typing import Any

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """It sets none of what Django's own sets when it connects: no `isolation_level`."""

    def get_connection_params(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super().get_connection_params()
        parameters.pop("ssl_context", None)  # for its pool
        return parameters

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        return self.Database.connect(**conn_params)
