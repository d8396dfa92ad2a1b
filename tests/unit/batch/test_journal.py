"""Records that outlive whoever writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_aixplain.batch.journal import FileJournal


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
