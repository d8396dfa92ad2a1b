"""Apache Airflow provider for aiXplain: run hosted AI models as deferred tasks."""

from __future__ import annotations

__version__ = "0.1.0"
