"""``protocol/`` imports neither Airflow nor sockets."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

from airflow_provider_aixplain import protocol


def test_the_protocol_imports_neither_airflow_nor_a_transport() -> None:
    modules = [f"{protocol.__name__}.{module.name}" for module in pkgutil.iter_modules(protocol.__path__)]
    assert len(modules) > 9
    code = (
        f"import sys, {', '.join(modules)}\n"
        "print([name for name in ('airflow', 'requests', 'aiohttp', 'socket', 'asyncio') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
