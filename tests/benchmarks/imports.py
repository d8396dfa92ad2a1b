"""Time to import the operator in a DAG file, without the import of Airflow."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from tests.benchmarks.results import report

CODE = """
import time
import airflow, airflow.sdk
begin = time.perf_counter()
import {module}
print(time.perf_counter() - begin)
"""
MODULES = (
    "airflow_provider_aixplain.operators.aixplain",
    "airflow.providers.standard.operators.python",
    "airflow.providers.http.operators.http",
    "airflow.providers.dbt.cloud.operators.dbt",
)
TIMES = 7


def main() -> None:
    """Import each module in fresh processes and print a table."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    rows = []
    for module in MODULES:
        command = [sys.executable, "-c", CODE.format(module=module)]
        seconds = [float(subprocess.check_output(command, stderr=subprocess.DEVNULL, env=env)) for _ in range(TIMES)]
        rows.append({"module": module, "ms": 1e3 * statistics.median(seconds)})
    report("imports", "Importing an operator, without Airflow and its SDK (median)", rows)


if __name__ == "__main__":
    main()
