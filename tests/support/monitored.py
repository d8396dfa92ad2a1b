"""A real Airflow with metrics, lineage and tests of Connections enabled."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.deployment import AIRFLOW_3, RUN_SECONDS, Airflow, Emulator, Processes
from tests.support.documentation import ROOT, examples

DAGS = ROOT / "tests" / "airflow" / "monitored" / "dags"
KEY = "the-only-key-that-works"


class Monitored:
    """An emulator that accepts one key, and an Airflow whose metrics and lineage can be read.

    :param processes: the deployment that they belong to.
    :param dags: folder of the DAGs.
    """

    def __init__(self, processes: Processes, dags: Path) -> None:
        self.dags = dags
        self._metrics: list[str] = []
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._listener.bind(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()
        processes.add_cleanup(self._listener.close)
        self.lineage = processes.home / "lineage.jsonl"
        self.emulator = Emulator(processes, RUN_SECONDS, key=KEY)
        settings = {
            "core__test_connection": "Enabled",
            "metrics__statsd_on": True,
            "metrics__statsd_host": "127.0.0.1",
            "metrics__statsd_port": self._listener.getsockname()[1],
            "metrics__statsd_influxdb_enabled": True,  # with tags
            "openlineage__transport": json.dumps({"type": "file", "log_file_path": str(self.lineage), "append": True}),
        }
        self.airflow = Airflow(processes, dags, {"aixplain_default": self.emulator.connection}, settings=settings)
        self.airflow.start()

    @cached_property
    def finished(self) -> str:
        """The id of the one finished run of the DAG ``monitored``."""
        return self.run("monitored")

    def run(self, dag_id: str) -> str:
        """Run a DAG until it has finished, and return the run's id."""
        run_id = self.airflow.trigger(dag_id)
        self.airflow.finish(dag_id, run_id)
        return run_id

    def metrics(self, name: str, **tags: str) -> list[str]:
        """Return the values of a metric with these tags, in StatsD's format, such as ``1|c``."""
        wanted = {f"{tag}={value}" for tag, value in tags.items()}
        values = []
        for line in self._metrics:
            metric, _, value = line.partition(":")
            sent_name, *sent_tags = metric.split(",")
            if sent_name == f"airflow.aixplain.{name}" and wanted <= set(sent_tags):
                values.append(value)
        return values

    @property
    def lines(self) -> list[str]:
        """All metrics that Airflow has sent, in StatsD's format."""
        return list(self._metrics)

    def lineage_events(self) -> dict[str, dict[str, Any]]:
        """Return the last event of OpenLineage with this provider's facet of each task, by its full name."""
        events = [json.loads(line) for line in self.lineage.read_text().splitlines()] if self.lineage.exists() else []
        return {event["job"]["name"]: event for event in events if "aixplain_run" in event["run"]["facets"]}

    def _listen(self) -> None:
        while True:
            try:
                datagram = self._listener.recv(65536)
            except OSError:
                return
            self._metrics += datagram.decode().splitlines()


def dags_for(folder: Path) -> Path:
    """Write the DAGs that this version of Airflow can read into a folder, with those of the documentation."""
    dags = Path(shutil.copytree(DAGS, folder))
    if AIRFLOW_3:
        for example in examples("dag"):
            (dags / f"{example.name}.py").write_text(example.code, encoding="utf-8")
    else:
        for name in ("retried", "linked"):
            (dags / f"{name}.py").unlink()
    return dags
