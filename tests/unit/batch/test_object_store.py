"""Put-if-absent and streams, on a file system and in object storage."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from airflow_provider_aixplain.batch import object_store as module
from airflow_provider_aixplain.batch.object_store import ObjectStore, store_at
from airflow_provider_aixplain.exceptions import AixplainInputError
from tests.unit.batch.batches import fail_calls


@pytest.fixture
def store(place: str) -> ObjectStore:
    found = store_at(place)
    found.make()
    return found


def test_an_object_is_created_once(store: ObjectStore) -> None:
    barrier = threading.Barrier(8)

    def is_created(number: int) -> bool:
        barrier.wait()
        with suppress(FileExistsError):
            store.put_if_absent("log/name", b"%d" % number)
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(is_created, range(8)))
    assert sum(created) == 1
    assert store.get_many(["log/name"])[0] == b"%d" % created.index(True)
    assert store.get_many(["log/other", "log/name"]) == [None, store.get_many(["log/name"])[0]]


def test_a_stream_replaces_an_object_at_the_end(store: ObjectStore) -> None:
    store.put_if_absent("name", b"old")
    with suppress(ValueError), store.writing("name") as file:
        file.write(b"new")
        raise ValueError("halfway")
    assert store.get_many(["name"])[0] == b"old"
    with store.writing("name") as file:
        file.write(b"new")
        assert store.get_many(["name"])[0] == b"old"
    with store.open("name") as found:
        assert found.read() == b"new"
    with pytest.raises(FileExistsError), store.writing("name", if_absent=True) as file:
        file.write(b"newer")
    store.remove("name")
    store.remove("name")
    assert store.get_many(["name"])[0] is None
    with pytest.raises(FileNotFoundError):
        store.open("name")


def test_the_probe_accepts_this_storage_and_leaves_nothing(store: ObjectStore) -> None:
    store.probe()
    assert store._path.fs.find(store._full("")) == []


@pytest.mark.parametrize("kind", ["ignores the keyword", "does not know the keyword", "looks before it writes"])
def test_a_storage_without_put_if_absent_is_refused(objects: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_at(f"{objects}/refused-{kind[:4]}")
    exists, pipe_file = store._path.fs.exists, store._path.fs.pipe_file
    barrier = threading.Barrier(module.PROBES)

    def replace(path: str, value: bytes, mode: str = "overwrite") -> None:
        if kind == "does not know the keyword":
            raise TypeError("got an unexpected keyword argument 'mode'")
        if kind == "looks before it writes":
            if exists(path):
                raise FileExistsError(path)
            barrier.wait()
        pipe_file(path, value)

    monkeypatch.setattr(store._path.fs, "pipe_file", replace)
    with pytest.raises(AixplainInputError, match=r"result_path: .*s3fs, gcsfs and adlfs .* from 2024\.12\.0 on"):
        store.probe()


def test_a_file_system_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_calls(monkeypatch, os, "link", range(100), PermissionError(errno.EPERM, "Operation not permitted"))
    store = store_at(f"file://{tmp_path}/out")
    store.make()
    with pytest.raises(AixplainInputError, match="has no hard links"):
        store.probe()


@pytest.mark.parametrize("conflicts", [2, 4])
def test_a_conflict_of_puts_is_retried(objects: str, conflicts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 answers 409 to concurrent puts, which s3fs raises as OSError."""
    monkeypatch.setattr(module, "CONFLICT_DELAYS", (0, 0, 0))
    store = store_at(f"{objects}/conflict-{conflicts}")
    fail_calls(monkeypatch, store._path.fs, "pipe_file", range(1, conflicts + 1))
    with nullcontext() if conflicts < 4 else pytest.raises(OSError, match="SlowDown"):
        store.put_if_absent("name", b"1")
    assert store.get_many(["name"]) == [b"1" if conflicts < 4 else None]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs Linux to name an open file")
def test_a_power_failure_loses_no_created_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder has to be synced after its new name exists."""
    synced: dict[str, bool] = {}

    def fsync(descriptor: int) -> None:
        synced[os.readlink(f"/proc/self/fd/{descriptor}")] = (tmp_path / "name").exists()

    monkeypatch.setattr(os, "fsync", fsync)
    store_at(f"file://{tmp_path}").put_if_absent("name", b"content")
    assert synced.pop(str(tmp_path)) is True
    assert list(synced.values()) == [False], "the content, before the file has its name"
