"""Uploads in real tasks: every map index sends its own file, and a path from an XCom is not sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.deployment import BIN, Airflow, Emulator, Processes

DAGS = Path(__file__).parent / "upload_dags"


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The names of the files that each task sent. All tasks run in one process."""
    folder = tmp_path_factory.mktemp("uploads")
    for name in ("a", "b", "secret"):
        (folder / f"{name}.txt").write_text(name)
    with Processes(folder / "airflow") as processes:
        emulator = Emulator(processes, seconds=0)
        Airflow(processes, DAGS, {"aixplain_default": emulator.connection})
        processes.env["UPLOADS_FOLDER"] = str(folder)
        airflow = str(BIN / "airflow")
        processes.run("db", airflow, "db", "migrate")
        processes.start("test", airflow, "dags", "test", "uploads")
        processes.running.pop("test").wait()
        sent: dict[str, list[str]] = {"log": [processes.log_path("test").read_text()]}
        for run in emulator.runs():
            payload = run["payload"]
            text = payload["text"] if "text" in payload else payload["data"][0]
            sent.setdefault(payload["from"], []).append(text.rpartition("/")[2])
        sent["stored"] = [path.read_text() for path in (processes.home / "platform").rglob("*") if path.is_file()]
    return sent


@pytest.mark.parametrize("task_id", ["partial", "literal", "mapped", "kwargs", "member"])
def test_every_map_index_sends_its_own_file(sent: dict[str, list[str]], task_id: str) -> None:
    assert sorted(sent[task_id]) == ["a.txt", "b.txt"], sent["log"][0][-3000:]


def test_a_path_can_come_from_a_task(sent: dict[str, list[str]]) -> None:
    assert sent["single"] == ["a.txt"]


def test_a_path_from_an_xcom_is_refused(sent: dict[str, list[str]]) -> None:
    (log,) = sent["log"]
    assert "data['text'] is a ObjectStoragePath, which is not uploaded automatically" in log
    assert "leaked" not in sent
    assert {"a", "b"} <= set(sent["stored"])
    assert "secret" not in sent["stored"]
