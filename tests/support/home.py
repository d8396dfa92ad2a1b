"""A real Airflow that is told all that an Airflow can be told of: metrics, lineage, and a database of Connections."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.deployment import AIRFLOW_3, Airflow, Emulator, Processes
from tests.support.documentation import ROOT, examples

DAGS = ROOT / "tests" / "airflow" / "home_dags"
KEY = "the-only-key-that-works"


class Home:
    """An emulator that takes one key, and an Airflow.

    :param processes: starts and ends them.
    """

    def __init__(self, processes: Processes, dags: Path) -> None:
        self.metrics: list[str] = []
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._listener.bind(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()
        processes.at_the_end(self._listener.close)
        self.lineage = processes.home / "lineage.jsonl"
        self.emulator = Emulator(processes, seconds=1, key=KEY)
        settings = {
            "core__test_connection": "Enabled",
            "metrics__statsd_on": True,
            "metrics__statsd_host": "127.0.0.1",
            "metrics__statsd_port": self._listener.getsockname()[1],
            "metrics__statsd_influxdb_enabled": True,  # so that the tags are there
            "openlineage__transport": json.dumps({"type": "file", "log_file_path": str(self.lineage), "append": True}),
        }
        self.airflow = Airflow(processes, dags, {"aixplain_default": self.emulator.connection}, settings=settings)
        self.airflow.start()

    @cached_property
    def finished(self) -> str:
        """The one run of the DAG ``at_home``, at its end."""
        return self.run("at_home")

    def run(self, dag_id: str) -> str:
        """Run a DAG to its end and return the run's id."""
        run_id = self.airflow.trigger(dag_id)
        self.airflow.finish(dag_id, run_id)
        return run_id

    def told(self, name: str, **tags: str) -> list[str]:
        """What was told of a metric with these tags, as StatsD writes it after the colon."""
        wanted = {f"{tag}={value}" for tag, value in tags.items()}
        found = []
        for line in self.metrics:
            told, _, value = line.partition(":")
            metric, *rest = told.split(",")
            if metric == f"airflow.aixplain.{name}" and wanted <= set(rest):
                found.append(value)
        return found

    def facets(self) -> list[dict[str, Any]]:
        """The facets of this provider in the events of OpenLineage."""
        events = [json.loads(line) for line in self.lineage.read_text().splitlines()] if self.lineage.exists() else []
        return [event["run"]["facets"]["aixplain_run"] for event in events if "aixplain_run" in event["run"]["facets"]]

    def _listen(self) -> None:
        while True:
            try:
                datagram = self._listener.recv(65536)
            except OSError:
                return
            self.metrics += datagram.decode().splitlines()


def dags_for(folder: Path) -> Path:
    """Return a folder with the DAGs that this Airflow can read, those of the documentation among them."""
    dags = Path(shutil.copytree(DAGS, folder))
    if AIRFLOW_3:
        for example in examples("dag"):
            (dags / f"{example.name}.py").write_text(example.code, encoding="utf-8")
    else:
        (dags / "retried.py").unlink()
    return dags
