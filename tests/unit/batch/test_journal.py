"""Records that outlive whoever writes them."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_aixplain.batch import storage as storage_module
from airflow_provider_aixplain.batch.journal import MERGED, FileJournal
from airflow_provider_aixplain.batch.storage import FileStorage, ObjectStorage, lists_at_once, storage_at
from airflow_provider_aixplain.exceptions import AixplainInputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal(tmp_path / "a.jsonl").create()
    return tmp_path / "a.jsonl"


def journal(path: Path) -> FileJournal:
    return FileStorage(path.parent).journal(path.stem)


def numbers(path: Path) -> list[int]:
    return [record["n"] for record in journal(path).read()]


def test_what_was_appended_is_read_by_anybody(path: Path) -> None:
    journal(path).append([{"n": 1}, {"n": 2}])
    journal(path).append([{"n": 3}])
    journal(path).create()
    assert numbers(path) == [1, 2, 3]
    assert list(journal(path.with_name("b.jsonl")).read()) == []


def test_who_appends_hears_of_others(path: Path) -> None:
    mine, other = journal(path), journal(path)
    mine.append([{"n": 1}])
    other.remember()
    assert mine.append([{"n": 2}]) == []
    assert other.append([{"n": 3}]) == [{"n": 2}]
    assert mine.news() == [{"n": 3}]
    assert mine.news() == []
    other.append([{"n": 4}])
    assert mine.append([{"n": 5}]) == [{"n": 4}]


def test_who_looks_hears_all_of_a_file_that_was_rewritten(path: Path) -> None:
    mine, other = journal(path), journal(path)
    mine.append([{"n": n} for n in range(5)])
    other.rewrite(lambda record: record["n"] == 4)
    other.append([{"n": n} for n in range(5, 15)])
    assert told(mine.news()) == list(range(4, 15))


def test_records_are_removed_all_at_once(path: Path) -> None:
    mine = journal(path)
    mine.append([{"n": n} for n in range(5)])
    mine.rewrite(lambda record: record["n"] % 2 == 0)
    mine.append([{"n": 9}])
    assert numbers(path) == [0, 2, 4, 9]
    assert mine.news() == []


@pytest.mark.parametrize("torn", ['{"n": 2', '{"n"', "\x00\x00"])
@pytest.mark.parametrize("looks", [True, False])
def test_a_line_that_its_writer_did_not_end_is_none_and_spoils_none(path: Path, torn: str, looks: bool) -> None:
    journal(path).append([{"n": 1}])
    with path.open("a") as file:
        file.write(torn)
    assert numbers(path) == [1]
    later = journal(path)
    if looks:
        later.remember()
    later.append([{"n": 3}])
    later.append([{"n": 4}])
    assert numbers(path) == [1, 3, 4]


def test_who_sees_a_half_of_a_line_hears_the_whole_of_it_later(path: Path) -> None:
    mine = journal(path)
    with path.open("a") as file:
        file.write('{"n":1}\n{"n":')
        file.flush()
        assert mine.news() == [{"n": 1}]
        file.write("2}\n")
    assert mine.news() == [{"n": 2}]


APPENDS = """
import sys
from pathlib import Path
from airflow_provider_aixplain.batch.storage import FileStorage
mine, heard = FileStorage(Path(sys.argv[1])).journal("a"), 0
for number in range(300):
    heard += len(mine.append([{"n": number, "by": sys.argv[2]}]))
heard += len(mine.news())
print(heard)
"""


def test_of_many_who_append_at_a_time_nobody_misses_a_word(path: Path) -> None:
    command = [sys.executable, "-c", APPENDS, str(path.parent)]
    writers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "abc"]
    assert {writer.wait() for writer in writers} == {0}
    records = list(journal(path).read())
    assert len(records) == 900
    last = {name: max(index for index, record in enumerate(records) if record["by"] == name) for name in "abc"}
    for writer, name in zip(writers, "abc", strict=True):
        assert writer.stdout is not None
        heard = int(writer.stdout.read())
        before = sum(record["by"] != name for record in records[: last[name]])
        assert before <= heard <= 600


REWRITES = """
import sys
from pathlib import Path
from airflow_provider_aixplain.batch.storage import FileStorage
mine = FileStorage(Path(sys.argv[1])).journal("a")
for _ in range(100):
    mine.rewrite(lambda record: True)
"""


def test_who_rewrites_a_file_takes_nothing_away_that_others_append_meanwhile(path: Path) -> None:
    commands = [[APPENDS, str(path.parent), name] for name in "ab"] + [[REWRITES, str(path.parent)]] * 2
    processes = [subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.DEVNULL) for command in commands]
    assert {process.wait() for process in processes} == {0}
    assert sorted(numbers(path)) == sorted([*range(300)] * 2)


HOLDS = """
import sys
from pathlib import Path
from airflow_provider_aixplain.batch.storage import FileStorage
with FileStorage(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_not_waited_for_in_vain_and_given_back_when_its_holder_is_killed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "LOCKED_FOR", 0.1)
    command = [sys.executable, "-c", HOLDS, str(path.parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(TimeoutError, match="stands still"):
            journal(path).append([{"n": 1}])
        holder.kill()
    journal(path).append([{"n": 2}])
    assert numbers(path) == [2]


def test_a_file_system_without_locks_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(AixplainInputError, match="result_path"):
        journal(path).append([{"n": 1}])


def test_who_has_lost_his_lock_while_he_rewrote_takes_nothing_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS takes it from a host that stands still."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    journal(path).append([{"n": 1}, {"n": 2}])

    def keep(record: dict[str, Any]) -> bool:
        if record["n"] == 1:
            journal(path).append([{"n": 3}])
        return record["n"] != 2

    with pytest.raises(OSError, match="somebody else"):
        journal(path).rewrite(keep)
    assert set(numbers(path)) == {1, 2, 3}


def test_who_has_lost_his_lock_while_he_appended_overwrites_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    mine, other = journal(path), journal(path)
    mine.append([{"n": 1}])
    pread, looks = os.pread, itertools.count()

    def stands_still(*arguments: int) -> bytes:
        found = pread(*arguments)
        if next(looks) == 0:  # at how the file ends
            other.append([{"owner": "other"}, {"n": 2}])
        return found

    monkeypatch.setattr(os, "pread", stands_still)
    assert told(mine.append([{"n": 3, "text": "longer than what the other one has written in the meantime"}])) == [2]
    assert mine.is_superseded
    assert told(journal(path).read()) == [1, 2, 3]
    assert mine.news() == []


def test_who_has_lost_his_lock_while_he_rewrote_writes_into_no_file_of_another(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    journal(path).append([{"n": n, "text": "x" * 100} for n in range(6)])

    def keep(record: dict[str, Any]) -> bool:
        if record["n"] == 3:
            journal(path).rewrite(lambda record: record["n"] != 4)
            journal(path).append([{"n": 6}])
        return record["n"] != 5

    with pytest.raises(OSError, match="somebody else"):
        journal(path).rewrite(keep)
    assert numbers(path) == [0, 1, 2, 3, 5, 6]
    assert sorted(os.listdir(path.parent)) == ["a.jsonl", "lock"]


def test_a_full_disk_is_told_and_spoils_no_record(path: Path) -> None:
    script = f"""
import resource, signal
from pathlib import Path
from airflow_provider_aixplain.batch.storage import FileStorage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
mine = FileStorage(Path({str(path.parent)!r})).journal("a")
mine.append([{{"n": 1}}])
try:
    mine.append([{{"n": 2, "text": "x" * 200}}])
except OSError:
    print("told")
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "told\n"
    journal(path).append([{"n": 3}])
    assert numbers(path) == [1, 3]


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        journal(tmp_path / "gone.jsonl").append([{"n": 1}])


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


def test_who_has_claimed_once_more_is_superseded_no_longer(place: str) -> None:
    first, second = journals(place, 2)
    first.claim({"owner": "first"})
    second.claim({"owner": "second"})
    first.append([{"n": 1}])
    assert first.is_superseded
    first.claim({"owner": "first"})
    first.append([{"n": 2}])
    assert not first.is_superseded
    second.append([{"n": 3}])
    assert second.is_superseded
    assert told(first.read()) == [1, 2, 3]


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


@pytest.mark.parametrize("is_published", [False, True])
def test_what_is_published_is_what_is_kept(place: str, is_published: bool) -> None:
    (mine,) = journals(place, 1)
    mine.append([{"n": n} for n in range(5)])
    if is_published:
        mine.publish(lambda record: True)
    mine.rewrite(lambda record: record["n"] != 3)
    mine.publish(lambda record: record["n"] % 2 == 1)
    with storage_at(place).open("a.jsonl") as file:
        assert file.read() == b'{"n":1}\n'


# In an object storage


def test_many_parts_become_few(objects: str) -> None:
    (mine,) = journals(f"{objects}/many", 1)
    mine.remember()
    count = 3 * MERGED + 5
    for number in range(count):
        mine.append([{"n": number}])
    storage = storage_at(f"{objects}/many")
    assert isinstance(storage, ObjectStorage)
    assert len(storage.names("a")) == 3 + 5
    assert [record["n"] for record in storage.journal("a").read()] == list(range(count))
    assert [record["n"] for record in storage.journal("a").news()] == list(range(count))


def test_who_cannot_read_on_while_he_rewrites_has_removed_nothing(objects: str) -> None:
    (mine,) = journals(f"{objects}/rewrites", 1)
    mine.append([{"n": n} for n in range(5)])
    mine.rewrite(lambda record: True)

    def trouble(record: dict[str, Any]) -> bool:
        if record["n"] == 3:
            raise OSError("reset")
        return True

    with pytest.raises(OSError, match="reset"):
        mine.rewrite(trouble)
    assert told(storage_at(f"{objects}/rewrites").journal("a").read()) == [0, 1, 2, 3, 4]


class Dies(Exception):
    """The process is killed here."""


def dies(*_: Any) -> None:
    raise Dies


def test_whoever_dies_while_he_merges_has_written_nothing_twice(objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine,) = journals(f"{objects}/dies", 1)
    mine.remember()
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStorage, "remove", dies)
        for number in range(MERGED):
            mine.append([{"n": number}])
    storage = storage_at(f"{objects}/dies")
    assert isinstance(storage, ObjectStorage)
    assert len(storage.names("a")) > MERGED, "the parts, and all of them in one"
    assert told(storage.journal("a").read()) == list(range(MERGED))


def test_whoever_dies_before_he_has_deleted_what_he_removed_has_removed_it(
    objects: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = journals(f"{objects}/removes", 3)
    first.append([{"n": n} for n in range(5)])
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStorage, "remove", dies)
        with pytest.raises(Dies):
            second.rewrite(lambda record: record["n"] != 3)
        assert told(third.read()) == [0, 1, 2, 4]
        with pytest.raises(Dies):
            third.rewrite(lambda record: record["n"] != 4)
        assert told(third.read()) == [0, 1, 2]
    third.rewrite(lambda record: record["n"] != 2)
    storage = storage_at(f"{objects}/removes")
    assert isinstance(storage, ObjectStorage)
    assert len(storage.names("a")) == 1, "nothing is left that counts no longer"


def test_who_reads_while_another_merges_misses_nothing(objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = journals(f"{objects}/reads", 2)
    writer.remember()
    for number in range(MERGED - 1):
        writer.append([{"n": number}])
    read_contents = ObjectStorage.contents
    asked = []

    def then_merged(self: ObjectStorage, names: list[str]) -> Iterator[bytes | None]:
        for number, content in enumerate(read_contents(self, names)):
            yield content
            if number == 20 and not asked:
                asked.append(names)
                writer.append([{"n": MERGED - 1}])  # and all are merged
                monkeypatch.setattr(storage_module, "READ_AT_A_TIME", MERGED)

    monkeypatch.setattr(storage_module, "READ_AT_A_TIME", 10)
    monkeypatch.setattr(ObjectStorage, "contents", then_merged)
    assert [record["n"] for record in reader.read()] == list(range(MERGED))


def test_who_reads_while_another_removes_is_told(objects: str) -> None:
    writer, reader = journals(f"{objects}/told", 2)
    for number in range(3):
        writer.append([{"n": number}])
    reading = reader.read()
    next(reading)
    writer.rewrite(lambda record: True)
    with pytest.raises(OSError, match="removed"):
        list(reading)
    assert told(reader.read()) == [0, 1, 2]


def test_what_is_listed_and_is_not_there_is_told(objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = journals(f"{objects}/listed", 2)
    writer.append([{"n": 1}])
    monkeypatch.setattr(ObjectStorage, "contents", lambda self, names: iter([None] * len(names)))
    with pytest.raises(OSError, match="is not there"):
        list(reader.read())


@pytest.mark.parametrize("removes", [True, False])
def test_who_stood_still_while_he_rewrote_takes_nothing_from_his_successor(
    objects: str, removes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of a task that Airflow has taken for dead goes on, when its successor has done all there was."""
    old, new = journals(f"{objects}/stood-{removes}", 2)
    old.claim({"owner": "old"})
    old.append([{"n": n} for n in range(5)])
    writing = ObjectStorage.writing

    @contextmanager
    def stands_still(self: ObjectStorage, name: str, **arguments: Any) -> Iterator[Any]:
        with writing(self, name, **arguments) as file:
            yield file
            monkeypatch.setattr(ObjectStorage, "writing", writing)
            new.claim({"owner": "new"})
            if removes:
                new.rewrite(lambda record: record.get("n") != 3)
            new.append([{"n": 9}])

    monkeypatch.setattr(ObjectStorage, "writing", stands_still)
    with pytest.raises(OSError, match="meanwhile") if removes else nullcontext():
        old.rewrite(lambda record: record.get("n") != 0)
    assert told(new.read()) == ([0, 1, 2, 4, 9] if removes else [1, 2, 3, 4, 9])


def test_who_stood_still_before_he_rewrote_takes_nothing_from_his_successor(objects: str) -> None:
    old, new = journals(f"{objects}/before", 2)
    old.claim({"owner": "old"})
    old.append([{"n": n} for n in range(5)])
    new.claim({"owner": "new"})
    new.rewrite(lambda record: record.get("n") != 3)
    new.append([{"n": 9}])
    old.rewrite(lambda record: record.get("n") != 0)
    assert told(new.read()) == [1, 2, 4, 9]


def test_what_others_have_put_there_does_not_matter(objects: str) -> None:
    (mine,) = journals(f"{objects}/stray", 1)
    mine.append([{"n": 1}])
    storage = storage_at(f"{objects}/stray")
    assert isinstance(storage, ObjectStorage)
    for name in ("a/.keep", "a/000001-x/notes.txt", "a/deep/er/00000001.jsonl", "a/other/00000001.jsonl"):
        storage.replace(name, b"?")
    mine.claim({"owner": "me"})
    mine.append([{"n": 2}])
    mine.rewrite(lambda record: True)
    assert told(mine.read()) == [1, 2]


def test_a_filesystem_that_lists_folder_by_folder_is_refused(objects: str) -> None:
    class Walks(AbstractFileSystem):  # type: ignore[misc]
        """One that leaves out what it cannot list."""

    class WalksToo(AsyncFileSystem):  # type: ignore[misc]
        """The same."""

    for walks in (Walks(), WalksToo()):
        assert not lists_at_once(walks)
    assert lists_at_once(MemoryFileSystem())
    storage = ObjectStorage(f"{objects}/refused")
    assert storage.names("a") == []
    assert lists_at_once(storage._fs)
    refused = ObjectStorage(f"{objects}/refused")
    refused.__dict__["_path"] = SimpleNamespace(fs=Walks())
    with pytest.raises(AixplainInputError, match="folder by folder"):
        refused.names("a")


def test_who_merges_late_brings_nothing_back_that_was_removed(objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = journals(f"{objects}/late", 2)
    old.claim({"owner": "old"})
    for number in range(MERGED - 2):
        old.append([{"n": number}])
    merge = ObjectStorage.replace

    def stands_still(self: ObjectStorage, name: str, content: bytes) -> None:
        if "-" in name.rpartition("/")[2]:
            new.claim({"owner": "new"})
            new.rewrite(lambda record: record.get("n") != 3)
        merge(self, name, content)

    monkeypatch.setattr(ObjectStorage, "replace", stands_still)
    old.append([{"n": MERGED}])
    assert 3 not in told(new.read())
    new.rewrite(lambda record: record.get("n") != 4)
    assert told(new.read()) == [0, 1, 2, *range(5, MERGED - 2), MERGED]


def test_a_storage_in_trouble_is_told_and_what_was_not_written_may_be_written_again(
    objects: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine,) = journals(f"{objects}/trouble", 1)
    mine.remember()
    list_names = ObjectStorage.names
    monkeypatch.setattr(ObjectStorage, "names", lambda *_: (_ for _ in ()).throw(OSError("503 SlowDown")))
    with pytest.raises(OSError, match="SlowDown"):
        mine.append([{"n": 1}])
    monkeypatch.setattr(ObjectStorage, "names", list_names)
    mine.append([{"n": 1}])
    assert set(told(mine.read())) == {1}


def test_trouble_loses_no_news(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = journals(place, 2)
    mine.append([{"n": 0}])
    other.claim({"owner": "other"})
    other.append([{"n": 1}])
    other.append([{"n": 2}])
    pread, contents, calls = os.pread, ObjectStorage.contents, itertools.count(1)

    def reads(*arguments: int) -> bytes:
        if next(calls) == 2:
            raise OSError("reset")
        return pread(*arguments)

    def gets(self: ObjectStorage, names: list[str]) -> Iterator[bytes | None]:
        for number, content in enumerate(contents(self, names)):
            if number == 2 and next(calls) == 1:
                raise OSError("reset")
            yield content

    monkeypatch.setattr(os, "pread", reads)
    monkeypatch.setattr(ObjectStorage, "contents", gets)
    with pytest.raises(OSError, match="reset"):
        mine.append([{"n": 3}])
    assert {1, 2} <= set(told(mine.append([{"n": 3}])))


def test_what_others_have_listed_is_not_taken_for_new(objects: str) -> None:
    """A file system keeps what it has listed, for all threads: one who lists with another cannot trust that."""
    old, new = journals(f"{objects}/cached", 2)
    old.claim({"owner": "old"})
    storage = storage_at(f"{objects}/cached")
    assert isinstance(storage, ObjectStorage)
    new.claim({"owner": "new"})
    stop = threading.Event()

    def lists() -> None:
        while not stop.is_set():
            storage.names("")

    with ThreadPoolExecutor(1) as pool:
        listing = pool.submit(lists)
        try:
            for number in range(50):
                new.append([{"n": number}])
                assert not new.is_superseded
        finally:
            stop.set()
        listing.result()


def test_a_file_is_created_once(place: str) -> None:
    storage = storage_at(place)
    storage.make()
    storage.create("name", b"1")
    with pytest.raises(FileExistsError):
        storage.create("name", b"2")
    assert storage.content("name") == b"1"


def test_who_is_not_told_that_he_has_created_a_file_has_created_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the answer of an NFS server is lost: it is asked again then, and the file is there."""
    link = os.link

    def asked_again(*arguments: Any) -> None:
        link(*arguments)
        link(*arguments)

    monkeypatch.setattr(os, "link", asked_again)
    test_a_file_is_created_once(f"file://{tmp_path}")


def test_a_file_is_created_once_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    test_a_file_is_created_once(f"file://{tmp_path}")
    assert sorted(os.listdir(tmp_path)) == ["lock", "name"]
