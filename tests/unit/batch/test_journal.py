"""Records that outlive whoever writes them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_aixplain.batch.journal import MERGED, FileJournal, Journal, ObjectJournal
from airflow_provider_aixplain.batch.storage import ObjectStorage, storage_at


@pytest.fixture
def path(tmp_path: Path) -> Path:
    FileJournal(tmp_path / "a.jsonl").create()
    return tmp_path / "a.jsonl"


def numbers(path: Path) -> list[int]:
    return [record["n"] for record in FileJournal(path).read()]


def test_what_was_appended_is_read_by_anybody(path: Path) -> None:
    FileJournal(path).append([{"n": 1}, {"n": 2}])
    FileJournal(path).append([{"n": 3}])
    assert numbers(path) == [1, 2, 3]
    assert list(FileJournal(path.with_name("b.jsonl")).read()) == []


def test_who_appends_hears_of_others(path: Path) -> None:
    mine, other = FileJournal(path), FileJournal(path)
    mine.append([{"n": 1}])
    other.remember()
    assert mine.append([{"n": 2}]) == []
    assert other.append([{"n": 3}]) == [{"n": 2}]
    assert mine.news() == [{"n": 3}]
    assert mine.news() == []
    other.append([{"n": 4}])
    assert mine.append([{"n": 5}]) == [{"n": 4}]


def test_who_looks_hears_that_somebody_has_begun_anew(path: Path) -> None:
    mine = FileJournal(path)
    mine.append([{"n": 1}])
    FileJournal(path).create()
    mine.news()
    assert mine.is_superseded
    other = FileJournal(path)
    other.append([{"n": 2}])
    FileJournal(path).create()
    other.append([])
    assert other.is_superseded


def test_records_are_removed_all_at_once(path: Path) -> None:
    journal = FileJournal(path)
    journal.append([{"n": n} for n in range(5)])
    journal.rewrite(lambda record: record["n"] % 2 == 0)
    journal.append([{"n": 9}])
    assert numbers(path) == [0, 2, 4, 9]
    assert journal.news() == []


@pytest.mark.parametrize("torn", ['{"n": 2', '{"n"', "\x00\x00"])
@pytest.mark.parametrize("looks", [True, False])
def test_a_line_that_its_writer_did_not_end_is_none_and_spoils_none(path: Path, torn: str, looks: bool) -> None:
    FileJournal(path).append([{"n": 1}])
    with path.open("a") as file:
        file.write(torn)
    assert numbers(path) == [1]
    later = FileJournal(path)
    if looks:
        later.remember()
    later.append([{"n": 3}])
    later.append([{"n": 4}])
    assert numbers(path) == [1, 3, 4]


APPENDS = """
import sys
from pathlib import Path
from airflow_provider_aixplain.batch.journal import FileJournal
mine, heard = FileJournal(Path(sys.argv[1])), 0
for number in range(300):
    heard += len(mine.append([{"n": number, "by": sys.argv[2]}]))
heard += len(mine.news())
print(heard)
"""


def test_of_many_who_append_at_a_time_nobody_misses_a_word(path: Path) -> None:
    command = [sys.executable, "-c", APPENDS, str(path)]
    writers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "abc"]
    assert {writer.wait() for writer in writers} == {0}
    records = list(FileJournal(path).read())
    assert len(records) == 900
    last = {name: max(index for index, record in enumerate(records) if record["by"] == name) for name in "abc"}
    for writer, name in zip(writers, "abc", strict=True):
        assert writer.stdout is not None
        heard = int(writer.stdout.read())
        before = sum(record["by"] != name for record in records[: last[name]])
        assert before <= heard <= 600


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileJournal(tmp_path / "gone.jsonl").append([{"n": 1}])


# In either storage


def journals(place: str, count: int) -> list[Any]:
    storage = storage_at(place)
    storage.make()
    storage.journal("a").create()
    return [storage_at(place).journal("a") for _ in range(count)]


def told(records: Iterable[dict[str, Any]]) -> list[int]:
    return sorted(record["n"] for record in records if "n" in record)


def test_whoever_claims_last_is_seen_by_the_others(place: str) -> None:
    first, second, third = journals(place, 3)
    first.claim({"owner": "first"})
    first.append([{"n": 1}])
    second.claim({"owner": "second"})
    second.append([{"n": 2}])
    assert not second.is_superseded
    assert told(first.append([{"n": 3}])) == [2]
    assert first.is_superseded
    third.claim({"owner": "third"})
    assert not third.is_superseded
    assert told(third.read()) == [1, 2, 3]
    second.append([{"n": 4}])
    assert second.is_superseded


def test_whoever_begins_anew_is_seen_by_whoever_was_at_it(place: str) -> None:
    first, second = journals(place, 2)
    first.claim({"owner": "first"})
    first.append([{"n": 1}])
    second.create()
    first.append([{"n": 2}])
    assert first.is_superseded
    second.claim({"owner": "second"})
    second.append([{"n": 3}])
    assert not second.is_superseded
    first.append([{"n": 4}])
    assert first.is_superseded


@pytest.mark.parametrize("turn", range(10))
def test_of_two_at_least_one_sees_the_other(place: str, turn: int) -> None:
    """What an owner has written is read by his successor, unless he knows that he has one."""
    old, new = journals(place, 2)
    old.claim({"owner": "old"})
    begins = threading.Barrier(2)

    def goes_on() -> list[int]:
        begins.wait()
        written = []
        for number in range(40):
            old.append([{"n": number}])
            if old.is_superseded:
                break
            written.append(number)
        return written

    def takes_over() -> list[int]:
        begins.wait()
        new.claim({"owner": "new"})
        return told(new.read())

    with ThreadPoolExecutor(2) as pool:
        written, read = pool.submit(goes_on), pool.submit(takes_over)
        assert set(written.result()) <= set(read.result())
    assert not new.is_superseded


def test_whoever_rewrites_leaves_the_rest_and_is_seen(place: str) -> None:
    old, new = journals(place, 2)
    old.claim({"owner": "old"})
    old.append([{"n": n} for n in range(5)])
    new.claim({"owner": "new"})
    new.rewrite(lambda record: record.get("n", 1) % 2 == 0)
    new.append([{"n": 9}])
    old.append([{"n": 11}])
    assert old.is_superseded
    assert told(new.read()) == [0, 2, 4, 9, 11]


# In an object storage


def test_many_parts_become_few(objects: str) -> None:
    (journal,) = journals(f"{objects}/many", 1)
    journal.remember()
    count = 3 * MERGED + 5
    for number in range(count):
        journal.append([{"n": number}])
    storage = storage_at(f"{objects}/many")
    assert isinstance(storage, ObjectStorage)
    assert len(storage.names("a")) <= 3 + 5 + 1
    assert told(storage.journal("a").read()) == list(range(count))
    assert told(storage.journal("a").news()) == list(range(count))


def test_who_cannot_read_on_while_he_rewrites_has_removed_nothing(objects: str) -> None:
    (journal,) = journals(f"{objects}/rewrites", 1)
    journal.append([{"n": n} for n in range(5)])
    journal.rewrite(lambda record: True)

    def trouble(record: dict[str, Any]) -> bool:
        if record["n"] == 3:
            raise OSError("reset")
        return True

    with pytest.raises(OSError, match="reset"):
        journal.rewrite(trouble)
    assert told(storage_at(f"{objects}/rewrites").journal("a").read()) == [0, 1, 2, 3, 4]


class Dies(Exception):
    """The process is killed here."""


def test_whoever_dies_while_he_merges_has_written_nothing_twice(objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (journal,) = journals(f"{objects}/dies", 1)
    journal.remember()
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStorage, "remove", lambda *_: (_ for _ in ()).throw(Dies()))
        for number in range(MERGED):
            journal.append([{"n": number}])
    storage = storage_at(f"{objects}/dies")
    assert isinstance(storage, ObjectStorage)
    assert len(storage.names("a")) > MERGED, "the parts, and all of them in one"
    assert told(storage.journal("a").read()) == list(range(MERGED))


def test_who_reads_while_another_merges_misses_nothing(objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = journals(f"{objects}/reads", 2)
    writer.remember()
    for number in range(MERGED - 1):
        writer.append([{"n": number}])
    list_names = ObjectStorage.names
    asked = []

    def then_merged(self: ObjectStorage, folder: str) -> list[str]:
        names = list_names(self, folder)
        if not asked:
            asked.append(folder)
            writer.append([{"n": MERGED - 1}])  # and all are merged before one of them is read
        return names

    assert set(told(reader.read())) == set(range(MERGED))


def test_a_storage_in_trouble_is_told_and_what_was_not_written_may_be_written_again(
    objects: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (journal,) = journals(f"{objects}/trouble", 1)
    journal.remember()
    list_folders = ObjectStorage.folders
    monkeypatch.setattr(ObjectStorage, "folders", lambda *_: (_ for _ in ()).throw(OSError("503 SlowDown")))
    with pytest.raises(OSError, match="SlowDown"):
        journal.append([{"n": 1}])
    monkeypatch.setattr(ObjectStorage, "folders", list_folders)
    journal.append([{"n": 1}])
    assert set(told(journal.read())) == {1}
    assert isinstance(journal, ObjectJournal)
    assert isinstance(journal, Journal)
