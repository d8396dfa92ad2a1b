"""An auth manager with rights for each DAG."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class DagRights(SimpleAuthManager):
    """Users may read the DAGs whose ids begin with their names."""

    def is_authorized_dag(self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None) -> bool:
        is_theirs = details is None or details.id is None or details.id.startswith(user.username)
        return is_theirs and super().is_authorized_dag(
            method=method, user=user, access_entity=access_entity, details=details
        )
