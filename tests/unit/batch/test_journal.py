"""Records that outlive whoever writes them, on a disk and on an object storage."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_aixplain.batch import journal as module
from airflow_provider_aixplain.batch.journal import Journal, Writer


@pytest.fixture(params=["disk", "object storage"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStoragePath:
    """The second is used as a storage is that cannot append."""
    monkeypatch.setattr(module, "LOOK_EVERY", 0)
    if request.param != "disk":
        monkeypatch.setattr(module, "LOCAL", ())
    return ObjectStoragePath(f"file://{tmp_path}")


def test_what_was_appended_is_read_by_anybody(folder: ObjectStoragePath) -> None:
    Journal(folder, "a").append([{"n": 1}, {"n": 2}])
    Journal(folder, "a").append([{"n": 3}])
    assert [record["n"] for record in Journal(folder, "a").read()] == [1, 2, 3]
    assert list(Journal(folder, "b").read()) == []


def test_who_appends_hears_of_others(folder: ObjectStoragePath) -> None:
    mine, other = Journal(folder, "a"), Journal(folder, "a")
    mine.append([{"n": 1}])
    other.remember()
    assert mine.append([{"n": 2}]) == []
    assert other.append([{"n": 3}]) == [{"n": 2}]
    assert mine.append([]) == [{"n": 3}]
    assert mine.append([]) == []


def test_records_are_removed_all_at_once(folder: ObjectStoragePath) -> None:
    journal = Journal(folder, "a")
    journal.append([{"n": n} for n in range(5)])
    journal.rewrite(lambda record: record["n"] % 2 == 0)
    journal.append([{"n": 9}])
    assert [record["n"] for record in Journal(folder, "a").read()] == [0, 2, 4, 9]
    assert journal.append([]) == []
    journal.merge()
    lines = (folder / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == [0, 2, 4, 9]
    journal.delete()
    assert list(Journal(folder, "a").read()) == []


@pytest.mark.parametrize("torn", ['{"n": 2', '{"n"', "\x00\x00"])
def test_a_line_that_its_writer_did_not_end_is_none(tmp_path: Path, torn: str) -> None:
    folder = ObjectStoragePath(f"file://{tmp_path}")
    Journal(folder, "a").append([{"n": 1}])
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(torn)
    assert [record["n"] for record in Journal(folder, "a").read()] == [1]
    later = Journal(folder, "a")
    later.append([{"n": 3}])
    later.append([{"n": 4}])
    assert [record["n"] for record in Journal(folder, "a").read()] == [1, 3, 4]


def test_a_writer_returns_when_it_is_there(folder: ObjectStoragePath) -> None:
    heard: list[Any] = []

    async def write() -> None:
        journal = Journal(folder, "a")
        writer = Writer(journal, heard.append)
        await asyncio.gather(*(writer.write({"n": n}) for n in range(50)))
        assert sorted(record["n"] for record in Journal(folder, "a").read()) == list(range(50))
        Journal(folder, "a").append([{"n": "other"}])
        await writer.write({"n": 50})

    asyncio.run(write())
    assert heard == [{"n": "other"}]


def test_a_disk_that_is_full_is_told(tmp_path: Path) -> None:
    journal = Journal(ObjectStoragePath(f"file://{tmp_path}/gone"), "a")

    async def write() -> None:
        await Writer(journal).write({"n": 1})

    with pytest.raises(OSError, match="gone"):
        asyncio.run(write())
