"""The Model API as plain data: what is asked of the platform, what it answers, when to ask again.

Nothing in this package opens a socket, reads a clock or imports Airflow.
"""

from __future__ import annotations

from airflow_provider_aixplain.model.response import ModelResponse, ResponseStatus
from airflow_provider_aixplain.model.wire import build_payload

__all__ = ["ModelResponse", "ResponseStatus", "build_payload"]
