"""How the rows of an input are mapped to the inputs of runs."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_aixplain.compat import ObjectStoragePath
from airflow_provider_aixplain.inputs.rows import BadRow, InputScan, Mapper, Row, decode_rows, encode_rows, read
from airflow_provider_aixplain.protocol.failure import InvalidInput


def rows(source: Any, **mapping: Any) -> list[Any]:
    return list(read(source, Mapper(**mapping)))


def file(tmp_path: Path, name: str, text: str) -> ObjectStoragePath:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return ObjectStoragePath(f"file://{tmp_path}/{name}")


def test_a_list_is_its_rows() -> None:
    assert rows(["a", {"text": "b"}]) == [Row(1, '{"data": "a"}'), Row(2, '{"text": "b"}')]


def test_columns_become_data_and_parameters() -> None:
    source = [{"id": "x", "review": "good", "lang": "en", "more": 1}]
    mapped = {"key": "id", "parameters": {"temperature": 0}, "parameter_columns": {"language": "lang"}}
    (row,) = rows(source, data="review", **mapped)
    assert row.key == "x"
    assert json.loads(row.payload) == {"data": "good", "temperature": 0, "language": "en"}
    (row,) = rows(source, data={"text": "review", "n": "more"}, key="id")
    assert json.loads(row.payload) == {"text": "good", "n": 1}


@pytest.mark.parametrize(
    ("source", "mapping", "reason"),
    [
        ([{"a": 1}], {"data": "b"}, "it has no column 'b'; there are a"),
        (["text"], {"data": "b"}, "it has no column 'b': it is a str"),
        ([None], {}, "data is None"),
        ([{"a": None}], {"data": "a"}, "data is None"),
        ([{"a": " "}], {"data": "a"}, "data is an empty text"),
        ([{"a": "x", "k": ""}], {"data": "a", "key": "k"}, "the key is an empty text"),
        ([{"a": "x", "k": 1.5}], {"data": "a", "key": "k"}, "the key 1.5 is neither"),
        ([{"a": {1}}], {"data": "a"}, "data is a set"),
    ],
)
def test_an_invalid_row_is_bad_with_its_reason(source: Any, mapping: Any, reason: str) -> None:
    (bad,) = rows(source, **mapping)
    assert isinstance(bad, BadRow)
    assert bad.line == 1
    assert reason in bad.reason


def test_a_repeated_key_is_a_bad_row() -> None:
    first, second = rows([{"k": "a"}, {"k": "a"}], key="k")
    assert first.key == "a"
    assert str(second) == "line 2: the key 'a' is that of an earlier row too"


def test_each_valid_json_line_is_a_row(tmp_path: Path) -> None:
    found = rows(file(tmp_path, "in.jsonl", '{"a": 1}\n\nnot json\n{"a": NaN}\n"text"\n[1]'), data=None)
    assert [type(row).__name__ for row in found] == ["Row", "BadRow", "BadRow", "Row", "Row"]
    assert [row.line for row in found if isinstance(row, BadRow)] == [3, 4]
    assert [row.key for row in found if isinstance(row, Row)] == [1, 4, 5], "the number counts bad rows too"


def test_a_csv_row_with_missing_cells_is_bad(tmp_path: Path) -> None:
    text = 'id,text\r\n1,"two\nlines"\r\n2\r\n3,"a, b"\r\n'
    found = rows(file(tmp_path, "in.csv", f"\ufeff{text}"), data="text", key="id")
    assert found == [
        Row("1", '{"data": "two\\nlines"}'),
        BadRow(4, "it has 1 values for 2 columns"),
        Row("3", '{"data": "a, b"}'),
    ]


def test_a_parquet_row_without_data_is_bad(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet is an extra")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"id": [7, 8], "text": ["a", None]}), tmp_path / "in.parquet")
    found = rows(ObjectStoragePath(f"file://{tmp_path}/in.parquet"), data="text", key="id")
    assert found[0] == Row(7, '{"data": "a"}')
    assert "data is None" in found[1].reason


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("in.xlsx", "", "its name has to end with .jsonl, .csv, .parquet"),
        ("in.csv", "", "it is empty"),
        ("in.csv", "a,a\n", "its first line has two columns named 'a'"),
    ],
)
def test_an_unreadable_source_is_refused(tmp_path: Path, name: str, text: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        rows(file(tmp_path, name, text))


def test_a_missing_file_or_a_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no such file"):
        rows(ObjectStoragePath(f"file://{tmp_path}/nothing.csv"))
    with pytest.raises(InvalidInput, match="input is a dict"):
        rows({"a": 1})


@given(st.lists(st.tuples(st.integers() | st.text(), st.text())))
def test_rows_are_read_back_as_written(values: list[tuple[Any, str]]) -> None:
    made = [Row(key, json.dumps({"data": text})) for key, text in values]
    assert list(decode_rows(encode_rows(made))) == made


@given(st.lists(st.text(), min_size=1), st.data())
def test_different_inputs_have_different_fingerprints(texts: list[str], data: st.DataObject) -> None:
    def fingerprint(texts: list[str], url: str = "u") -> str:
        scan = InputScan(itertools.starmap(Row, enumerate(texts)), url)
        list(scan)
        return scan.fingerprint

    index = data.draw(st.integers(0, len(texts) - 1))
    other = [*texts[:index], f"{texts[index]}!", *texts[index + 1 :]]
    assert fingerprint(texts) == fingerprint(list(texts))
    assert len({fingerprint(texts), fingerprint(other), fingerprint(texts[1:]), fingerprint(texts, "v")}) == 4
