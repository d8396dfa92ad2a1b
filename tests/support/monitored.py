"""A real Airflow with metrics, lineage and tests of Connections enabled."""

from __future__ import annotations

import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.deployment import AIRFLOW_3, RUN_SECONDS, Airflow, Emulator, Processes
from tests.support.documentation import ROOT, examples, table
from tests.support.stats import StatsListener

DAGS = ROOT / "tests" / "airflow" / "monitored" / "dags"
KEY = "the-only-key-that-works"


class Monitored:
    """An emulator that accepts one key, and an Airflow whose metrics and lineage can be read.

    :param processes: the deployment that they belong to.
    :param dags: folder of the DAGs.
    """

    def __init__(self, processes: Processes, dags: Path) -> None:
        self.dags = dags
        self.stats = StatsListener(processes)
        self.lineage = processes.home / "lineage.jsonl"
        self.emulator = Emulator(processes, RUN_SECONDS, key=KEY)
        settings = {
            "core__test_connection": "Enabled",
            **self.stats.settings,
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
        return self.stats.metrics(name, **tags)

    @property
    def lines(self) -> list[str]:
        """All metrics that Airflow has sent, in StatsD's format."""
        return list(self.stats.lines)

    def lineage_events(self) -> dict[str, dict[str, Any]]:
        """Return the last event of OpenLineage with this provider's facet of each task, by its full name."""
        events = [json.loads(line) for line in self.lineage.read_text().splitlines()] if self.lineage.exists() else []
        return {event["job"]["name"]: event for event in events if "aixplain_run" in event["run"]["facets"]}


def dags_for(folder: Path) -> Path:
    """Write the DAGs that this version of Airflow can read into a folder, with those of the documentation."""
    dags = Path(shutil.copytree(DAGS, folder))
    if AIRFLOW_3:
        for example in examples("dag"):
            (dags / f"{example.name}.py").write_text(example.code, encoding="utf-8")
        (dags / "reviews.csv").write_text(table("quickstart"), encoding="utf-8")
    else:
        for name in ("retried", "linked"):
            (dags / f"{name}.py").unlink()
    return dags
