"""A local server that speaks the platform's wire protocol and hosts small real models, and agents that call them."""

from __future__ import annotations

from airflow_provider_aixplain.emulator.server import create_app

__all__ = ["create_app"]
