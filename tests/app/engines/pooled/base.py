"""An engine that connects in its own way, as connection pools for gevent do."""

from typing import Any

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """It sets no `isolation_level`, which Django's own engine sets when it connects."""

    def get_connection_params(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super().get_connection_params()
        parameters.pop("ssl_context", None)  # for its pool
        return parameters

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        return self.Database.connect(**conn_params)
