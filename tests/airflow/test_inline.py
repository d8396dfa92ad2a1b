"""``airflow dags test``: tasks and their triggers in one process, in a real Airflow without scheduler and triggerer."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

from tests.support.deployment import BIN, Airflow, Emulator, Processes

DAGS = Path(__file__).parent / "inline_dags"


def test_dags_test_succeeds_without_waiting_for_a_worker(tmp_path: Path) -> None:
    # A trigger that waited for the worker's heartbeat would exceed the timeout.
    settings = {"workers__min_heartbeat_interval": 100_000, "logging__json_logs": False}
    with Processes(tmp_path / "home") as processes:
        emulator = Emulator(processes, seconds=1)
        Airflow(processes, DAGS, {"aixplain_default": emulator.connection}, settings=settings)
        processes.run("db", str(BIN / "airflow"), "db", "migrate")
        env = {**processes.env, "INLINE_RESULTS": f"file://{tmp_path}/results"}
        command = [str(BIN / "airflow"), "dags", "test", "inline"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        printed = done.stdout + done.stderr
        submitted = Counter(str(run["payload"]["data"]) for run in emulator.runs())
    assert done.returncode == 0, printed
    assert "RESULTS ended ['m1', 'm2'] UPPER 2" in printed, printed
    for problem in ("AttributeError", "as pushing its XComs failed", "Traceback"):
        assert problem not in printed, printed
    assert "is called within task 'nested'" in printed
    assert submitted == Counter(["ended", "m1", "m2", "UPPER", "r1", "r2", "nested"])
