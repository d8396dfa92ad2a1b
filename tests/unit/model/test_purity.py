"""The core stands alone: no Airflow, no sockets."""

from __future__ import annotations

import subprocess
import sys


def test_the_core_imports_neither_airflow_nor_a_transport() -> None:
    code = (
        "import sys, airflow_provider_aixplain.model, airflow_provider_aixplain.model.wait\n"
        "print([name for name in ('airflow', 'requests', 'aiohttp', 'socket', 'asyncio') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
