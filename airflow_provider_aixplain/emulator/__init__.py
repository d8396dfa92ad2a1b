"""A local server that speaks the platform's wire protocol and hosts small real models."""

from __future__ import annotations

from airflow_provider_aixplain.emulator.server import create_app

__all__ = ["create_app"]
