"""Which files of common programs are read, and which are refused with which remedy."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import random
import time
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from airflow_provider_aixplain.compat import ObjectStoragePath
from airflow_provider_aixplain.inputs import readers as readers
from airflow_provider_aixplain.inputs.rows import BadRow, Mapper, Row, read
from airflow_provider_aixplain.protocol.failure import InvalidInput
from tests.support.fuzzing import examples

pyarrow = pytest.importorskip("pyarrow", reason="Parquet is an extra")
from pyarrow import parquet  # noqa: E402


def put(tmp_path: Path, name: str, content: bytes | str) -> ObjectStoragePath:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ObjectStoragePath(f"file://{path}")


def rows(source: Any, encoding: str = "utf-8", delimiter: str | None = None, **mapping: Any) -> list[Row | BadRow]:
    return list(read(source, Mapper(**mapping), encoding, delimiter))


def data_of(found: list[Row | BadRow]) -> list[Any]:
    """Return the data of each payload, and the reason of each bad row."""
    return [json.loads(row.payload)["data"] if isinstance(row, Row) else row.reason for row in found]


def texts(tmp_path: Path, name: str, content: bytes | str, **arguments: Any) -> list[Any]:
    return data_of(rows(put(tmp_path, name, content), data="text", **arguments))


TEXTS = ["1E5", "1.10", "true", "null", "{}", '{"data": "x", "max_tokens": 100000}', "[1]", " x ", "007", "NaN", "5"]


def test_text_cells_are_sent_as_text(tmp_path: Path) -> None:
    file = io.StringIO()
    writer = csv.DictWriter(file, ["text"])
    writer.writeheader()
    writer.writerows({"text": text} for text in TEXTS)
    lines = "\n".join(json.dumps({"text": text}) for text in TEXTS)
    parquet.write_table(pyarrow.table({"text": TEXTS}), tmp_path / "in.parquet")
    expected = [json.dumps({"data": text}) for text in TEXTS]
    for source in (
        put(tmp_path, "in.csv", file.getvalue()),
        put(tmp_path, "in.jsonl", lines),
        ObjectStoragePath(f"file://{tmp_path}/in.parquet"),
        [{"text": text} for text in TEXTS],
    ):
        assert [row.payload for row in rows(source, data="text") if isinstance(row, Row)] == expected
    assert [row.payload for row in rows(TEXTS) if isinstance(row, Row)] == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('id,text\n1,"open\n2,b\n3,c\n', r"in.csv': line 2: unexpected end of data\. .*double each quote inside"),
        ('id,text\n1,a\n2,"say "hi" now"\n3,"c"\n', "line 3: ',' expected after '\"'"),
        ('id,text\n1,5" pipe\n2,6" pipe\n', "line 2: there is a quote inside an unquoted cell"),
        ('id,text\n1, "a\n2,b"\n', "line 2: there is a quote inside an unquoted cell"),
        ('id,text\n1,"a \\"b\\" c"\n', "line 2: ',' expected after"),
        ('id,text\n1,"a \\""\n2,b\n3,"c"\n', "line 2: ',' expected after|line 2: unexpected end of data"),
        ("id,text\n1,a\rb\n2,c\n", "line 2: new-line character seen in unquoted field"),
        ('id,te"xt\n1,a\n', "line 1: there is a quote inside"),
    ],
)
def test_csv_with_misplaced_quotes_is_refused_with_the_line(tmp_path: Path, content: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        texts(tmp_path, "in.csv", content)


def test_a_long_cell_of_many_lines_is_one_cell(tmp_path: Path) -> None:
    long = "".join(f"line {number}, and more\n" for number in range(20_000))
    before = csv.field_size_limit()
    assert texts(tmp_path, "in.csv", f'id,text\n1,"{long}"\n2,b\n') == [long, "b"]
    assert csv.field_size_limit() == before


def test_readers_at_the_same_time_restore_the_limit_together(tmp_path: Path) -> None:
    path = put(tmp_path, "in.csv", f"text\n{'a' * 200_000}\n{'b' * 200_000}\n")
    before = csv.field_size_limit()
    first, second = (read(path, Mapper("text")) for _ in range(2))
    next(first), next(second)
    first.close()  # type: ignore[attr-defined]
    assert isinstance(next(second), Row)
    second.close()  # type: ignore[attr-defined]
    assert csv.field_size_limit() == before


def test_a_limit_set_by_other_code_is_kept(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    reading = read(put(tmp_path, "in.csv", "text\na\nb\n"), Mapper("text"))
    next(reading)
    try:
        csv.field_size_limit(5000)
        assert len(list(reading)) == 1
        assert csv.field_size_limit() == 5000
    finally:
        csv.field_size_limit(before)


def test_a_row_without_end_is_refused_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_RECORD_LENGTH", 100_000)
    with pytest.raises(InvalidInput, match=r"line 2: the row is longer than 100000 characters.*double each quote"):
        texts(tmp_path, "in.csv", 'text\n"' + "open\n" * 100_000)
    for name in ("in.csv", "in.jsonl"):
        with pytest.raises(InvalidInput, match="line 1 is longer than 100000 characters"):
            texts(tmp_path, name, "x" * 1_000_000)


@pytest.mark.parametrize(
    ("name", "header", "line"),
    [("in.csv", "text\n", '"{} ""b"""\n'), ("in.jsonl", "", '{{"text": "{}"}}\n')],
)
def test_text_is_read_in_a_stream(tmp_path: Path, name: str, header: str, line: str) -> None:
    reading = read(put(tmp_path, name, header + line.format("a" * 100) * 100_000), Mapper("text"))
    tracemalloc.start()
    try:
        assert sum(isinstance(row, Row) for row in islice(reading, 20_000)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("size", "count", "limit"), [(500, 20_000, 8_000_000), (100_000, 1000, 40_000_000)])
def test_a_row_group_of_parquet_is_read_in_a_stream(tmp_path: Path, size: int, count: int, limit: int) -> None:
    texts = [random.randbytes(size).hex() for _ in range(count)]
    table = pyarrow.table({"text": texts})
    parquet.write_table(table, tmp_path / "in.parquet", use_dictionary=False, write_batch_size=10)  # in a page
    reading = read(ObjectStoragePath(f"file://{tmp_path}/in.parquet"), Mapper("text"))
    pool = pyarrow.default_memory_pool()
    before = pool.bytes_allocated()
    assert max(pool.bytes_allocated() - before for _ in reading) < limit


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_line_ends_of_all_systems_are_read(tmp_path: Path, end: str) -> None:
    content = end.join(["id,text", "1,a", '2,"b\nc\rd\r\ne"', "", "3,f"])
    assert texts(tmp_path, "in.csv", content) == ["a", "b\nc\rd\r\ne", "f"]
    (bad,) = (row for row in rows(put(tmp_path, "in.csv", f"id,text{end}1,a{end}2{end}")) if isinstance(row, BadRow))
    assert str(bad) == "line 3: it has 1 values for 2 columns"


def test_a_carriage_return_may_end_the_first_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "CHUNK_SIZE", 5)
    assert texts(tmp_path, "in.csv", "text\r\na\r\nb\r\n") == ["a", "b"]
    assert texts(tmp_path, "in.csv", "text\ra\rb\r") == ["a", "b"]


@pytest.mark.parametrize("data", [None, "text", "id;text"])
@pytest.mark.parametrize(("header", "other"), [("id;text", "';'"), ("id\ttext", r"'\\t'"), ("id|a,b|text", r"'\|'")])
def test_another_delimiter_is_refused_with_the_remedy(tmp_path: Path, header: str, other: str, data: Any) -> None:
    with pytest.raises(InvalidInput, match=f"use delimiter={other}, or delimiter=','"):
        rows(put(tmp_path, "in.csv", f"{header}\n1;a\n"), data=data)


@pytest.mark.parametrize(
    ("name", "content", "arguments"),
    [
        ("in.csv", 'text\r\n"a, b"\r\n\x1a', {}),
        ("in.csv", 'PAR1,text\n1,"a, b"\n', {}),
        ("in.csv", "id;text\n1;a, b\n", {"delimiter": ";"}),
        ("in.csv", "sep=;\r\nid;text\r\n1;a, b\r\n", {}),
        ("in.csv", '"sep=;"\r\nid;text\r\n1;a, b\r\n', {"delimiter": ";"}),
        ("in.tsv", "id\ttext\n1\ta, b\n", {}),
        ("in.csv", '"id;no",text\n1,"a, b"\n', {}),
        ("in.csv", 'id;no,text\n1,"a, b"\n', {"delimiter": ","}),
        ("in.txt", "id\ttext\r\n1\ta, b\r\n".encode("utf-16"), {"delimiter": "\t", "encoding": "utf-16"}),
        ("in.csv", 'id,text,,\r\n1,"a, b",,\r\n', {}),
        ("in.csv", ',text\n0,"a, b"\n', {}),
        ("IN.CSV", '\ufeffid,text\n1,"a, b"\n', {}),
        ("in.csv.gz", gzip.compress(b'text\n"a, b"\n'), {}),
        ("in.csv", gzip.compress(b'text\n"a, b"\n'), {}),
        ("in.jsonl.gz", gzip.compress(b'{"text": "a, b"}\n'), {}),
        ("in.json", '{"text": "a, b"}\n', {}),
        ("in.ndjson", '\ufeff{"text": "a, b"}\r\n\r\n', {}),
        ("in.jsonl", '{"text": "a, b"}'.encode("utf-16"), {"encoding": "utf-16"}),
        ("in.csv", '\n\ntext\n\n"a, b"\n\n', {}),
    ],
)
def test_files_of_common_programs_are_read(tmp_path: Path, name: str, content: Any, arguments: Any) -> None:
    assert texts(tmp_path, name, content, **arguments) == ["a, b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "UTF8"])
def test_a_declared_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    assert texts(tmp_path, "in.csv", "text\nCafé – 5 €\n".encode(encoding), encoding=encoding) == ["Café – 5 €"]
    marked = "\ufefftext\nCafé\n"
    if encoding != "cp1252":
        assert texts(tmp_path, "in.csv", marked.encode(encoding), encoding=encoding) == ["Café"]


@pytest.mark.parametrize(
    ("name", "content", "arguments", "problem"),
    [
        (
            "in.csv",
            "text\na\nCafé\n".encode("cp1252"),
            {},
            r"line 3: it is not valid utf-8 \(byte e9\).* encoding='cp1252'",
        ),
        ("in.jsonl", b'{"text": "a"}\n{"text": "\xe9"}', {}, r"line 2: .*\(byte e9\)"),
        ("in.csv", b"text\ncut\xe2\x82", {}, r"line 2: .*utf-8 \(byte e2\)"),
        ("in.csv", "text\na\n".encode("utf-16"), {}, "byte order mark is that of utf-16.* use encoding='utf-16'"),
        ("in.csv", "text\na\n".encode("utf-32"), {}, "use encoding='utf-32'"),
        ("in.csv", "\ufefftext\na\n", {"encoding": "cp1252"}, "mark is that of utf-8, and encoding is 'cp1252'"),
        ("in.csv", "\ufefftext\n".encode("utf-16-le"), {"encoding": "utf-16-be"}, "use encoding='utf-16'"),
        ("in.csv", "text\na\n".encode("utf-16-le"), {}, "line 1: it has a NUL character.* try encoding='utf-16'"),
        ("in.jsonl", b'"a"\n"\0"\n', {}, "line 2: it has a NUL"),
        ("in.csv", "text\n", {"encoding": "klingon"}, "encoding is 'klingon': give the name of a Python codec"),
        ("in.csv", "text\n", {"encoding": "base64"}, "encoding is 'base64'"),
        ("in.csv", "text\n", {"encoding": None}, "encoding is None"),
        ("in.csv", "text\n", {"delimiter": "\\t"}, "delimiter is .*: give one character"),
        ("in.csv", "text\n", {"delimiter": '"'}, "delimiter is '\"'"),
        ("in.csv", "sep=;\ntext\n", {"delimiter": ","}, "its first line is 'sep=;', and delimiter is ','"),
        ("in.csv", ",,\na,b,c\n", {}, "its first line names no columns"),
        ("in.csv", "\n", {}, "it is empty: its first line has to name columns"),
        ("in.csv", "text,id,text\n", {}, "its first line has two columns named 'text'"),
        ("in.csv", "id,Text\n1,a\n2,b\n", {}, "it has no column 'text'; there are 'id', 'Text'$"),
        ("in.txt", "text\na\n", {}, "name the delimiter of a text file.*'Unicode Text'"),
        ("in.xlsx", b"PK\3\4", {}, r"end with \.jsonl, \.csv, \.parquet.*it is a workbook: save it as 'CSV UTF-8'"),
        ("in.csv", b"PK\3\4more", {}, "it is a ZIP archive or an Excel workbook: save the workbook as 'CSV UTF-8'"),
        ("in.csv", b"PAR1\x15", {}, "it is Parquet: let its name end with .parquet"),
        ("in.jsonl", b"\x28\xb5\x2f\xfd", {}, "compressed with zstd: unpack it"),
        ("in.csv", "<!DOCTYPE html>\n<p>", {}, "it is HTML or XML"),
        ("in.csv.bz2", b"BZh", {}, "it is packed: unpack it"),
        ("in.csv.gz", gzip.compress(b"text\na\n")[:-9], {}, "damaged, or was not written to its end"),
        ("in.csv.gz", gzip.compress(b"text\na\n") + b"more", {}, "damaged, or was not written to its end"),
        ("in.csv.gz", gzip.compress(b"x" * 99)[:12] + b"\xff" * 20, {}, "damaged"),
        ("csv", "text\na\n", {}, "its name has to end with"),
        ("in.json", '[{"text": "a"}, {"text": "b"}]', {}, r"line 1 is a JSON array: .*jq -c '\.\[\]'"),
        ("in.json", '[\n{"text": "a"},\n{"text": "b"}\n]', {}, "line 1 holds only the beginning of a JSON value"),
        ("in.jsonl", '{"text": "a"}\n{\n"n":\n{"text": "b"}\n}', {}, "line 2 holds only the beginning"),
        ("in.jsonl", '{"text": "a\n{"text": "b"}\n', {}, "line 1 holds only the beginning"),
        ("in.parquet", b"", {}, "after row 0: it is damaged, or not Parquet"),
        ("in.parquet", b"PAR1" * 9, {}, "it is damaged, or not Parquet"),
        ("in.parquet.gz", b"", {}, "it is compressed as a whole"),
    ],
)
def test_a_file_is_refused_by_what_it_really_is(
    tmp_path: Path, name: str, content: Any, arguments: Any, problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem) as raised:
        texts(tmp_path, name, content, **arguments)
    assert name in str(raised.value) or next(iter(arguments)) in str(raised.value)


def test_columns_without_a_name_must_be_empty(tmp_path: Path) -> None:
    content = "a,b,,\n1,2,,\n3,4\n5,6,x,\n7,8,,,\n"
    found = rows(put(tmp_path, "in.csv", content))
    assert [row.payload for row in found if isinstance(row, Row)] == ['{"a": "1", "b": "2"}', '{"a": "3", "b": "4"}']
    assert [str(row) for row in found if isinstance(row, BadRow)] == [
        "line 4: it has a value in a column without a name: name the column, or use data",
        "line 5: it has 5 values for 4 columns",
    ]


def test_json_lines_change_no_value(tmp_path: Path) -> None:
    content = '{"text": 123456789012345678901234567890}\n{"text": 1, "text": 2}\n{"text": 1e999}\n{"text": 1.10}\n'
    content += '{"text": {"max_tokens": 5}}\n' + "[" * 100_000 + "]" * 100_000 + "\n{}\n5\n"
    found = texts(tmp_path, "in.jsonl", content)
    assert found[0] == 123456789012345678901234567890
    assert found[1] == "invalid JSON: an object has two members named 'text'"
    assert found[2].startswith("invalid JSON: 1e999")
    assert found[3:5] == [1.1, {"max_tokens": 5}]
    assert "invalid JSON: maximum recursion" in found[5]
    assert found[6:] == ["it has no column 'text'; there are none", "it has no column 'text': it is a int"]


def test_only_the_columns_that_are_used_matter(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "text": ["a", "b"],
            "price": [Decimal("1.10"), None],
            "day": [datetime.date(2026, 1, 1), None],
            "at": pyarrow.array([2**59, None], pyarrow.timestamp("us")),
            "raw": [b"\xff", None],
            "took": [datetime.timedelta(1), None],
            "a.b": [1, 2],
            "a": [{"b": 1}, {"b": 2}],
        }
    )
    parquet.write_table(table, tmp_path / "in.parquet")
    source = ObjectStoragePath(f"file://{tmp_path}/in.parquet")
    assert data_of(rows(source, data="text", key="a.b")) == ["a", "b"]
    assert data_of(rows(table.drop_columns(["at"]).to_pylist(), data="text")) == ["a", "b"]
    reasons = [row.reason for row in rows(source, data="at") if isinstance(row, BadRow)]
    assert reasons[0].startswith("column 'at' of type timestamp")
    assert reasons[1].startswith("data is None")
    with pytest.raises(InvalidInput, match="it has no column 'txt'; there are 'text', 'price'"):
        rows(source, data="txt")


def test_values_of_tables_have_a_documented_form(tmp_path: Path) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    values = {
        "decimal": (Decimal("1.10"), "1.10"),
        "date": (datetime.date(2026, 1, 31), "2026-01-31"),
        "naive": (datetime.datetime(2026, 1, 31, 12), "2026-01-31T12:00:00"),
        "aware": (datetime.datetime(2026, 1, 31, 12, tzinfo=zone), "2026-01-31T12:00:00+02:00"),
        "time": (datetime.time(1, 2), "01:02:00"),
        "list": ([1, None], [1, None]),
        "object": ({"a": Decimal("2.50")}, {"a": "2.50"}),
        "truth": (True, True),
        "float": (0.5, 0.5),
    }
    given_values = {name: value for name, (value, _) in values.items()}
    expected = {name: sent for name, (_, sent) in values.items()}
    parquet.write_table(pyarrow.table({name: [value] for name, value in given_values.items()}), tmp_path / "in.parquet")
    for source in ([given_values], ObjectStoragePath(f"file://{tmp_path}/in.parquet")):
        (row,) = rows(source)
        assert isinstance(row, Row)
        assert json.loads(row.payload) == expected


def test_a_timestamp_of_spark_may_have_any_year(tmp_path: Path) -> None:
    times = ["9999-12-31T00:00:00", "2026-01-31T12:00:00.123456", "1600-01-01T00:00:00"]
    table = pyarrow.table({"text": pyarrow.array(map(datetime.datetime.fromisoformat, times), pyarrow.timestamp("us"))})
    parquet.write_table(table, tmp_path / "in.parquet", use_deprecated_int96_timestamps=True)
    assert data_of(rows(ObjectStoragePath(f"file://{tmp_path}/in.parquet"), data="text")) == times


def test_values_of_numpy_are_sent_as_plain_ones() -> None:
    numpy = pytest.importorskip("numpy")
    values = {
        "int": (numpy.int64(5), 5),
        "float": (numpy.float32(0.5), 0.5),
        "truth": (numpy.bool_(True), True),
        "time": (numpy.datetime64("2026-01-31T12:00:00.000000001"), "2026-01-31T12:00:00.000000001"),
        "text": (numpy.str_("x"), "x"),
        "array": (numpy.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        "zero": (numpy.array(5), 5),
    }
    (row,) = rows([{name: value for name, (value, _) in values.items()}])
    assert isinstance(row, Row)
    assert json.loads(row.payload) == {name: sent for name, (_, sent) in values.items()}
    refused = [numpy.datetime64("NaT"), numpy.float32("nan"), numpy.timedelta64(1), float("nan"), Decimal("NaN"), b"x"]
    assert all(isinstance(row, BadRow) for row in rows([{"text": value} for value in refused], data="text"))


@pytest.mark.parametrize(
    ("key", "expected"),
    [(5, 5), (5.0, 5), (Decimal("5.00"), 5), (Decimal(2**62 + 1), 2**62 + 1), ("5", "5"), ("x", "x")],
)
def test_whole_numbers_are_keys_whatever_their_type(key: Any, expected: Any) -> None:
    (row,) = rows([{"k": key, "text": "a"}], data="text", key="k")
    assert isinstance(row, Row)
    assert (row.key, type(row.key)) == (expected, type(expected))


@pytest.mark.parametrize("name", ["int8", "uint64", "int64", "float32", "float64"])
def test_whole_numbers_of_numpy_are_keys(name: str) -> None:
    numpy = pytest.importorskip("numpy")
    (row,) = rows([{"k": getattr(numpy, name)(5), "text": "a"}], data="text", key="k")
    assert isinstance(row, Row)
    assert (row.key, type(row.key)) == (5, int)


@pytest.mark.parametrize(
    "key",
    [
        True,
        5.5,
        float("nan"),
        float("inf"),
        2.0**60,
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("1E+999999"),
        2**64,
        pytest.param(10**5000, id="5,000 digits"),
        None,
        "",
        "\ud800",
        "nul\0",
        [5],
        b"5",
    ],
)
def test_other_values_are_no_keys(key: Any) -> None:
    (row,) = rows([{"k": key, "text": "a"}], data="text", key="k")
    assert isinstance(row, BadRow)
    assert row.reason.startswith("the key ")


def test_keys_differ_as_texts_too() -> None:
    source = [{"k": key, "text": "a"} for key in (5, 5.0, "5")]
    assert [type(row).__name__ for row in rows(source, data="text", key="k")] == ["Row", "BadRow", "BadRow"]


def test_parameters_cannot_replace_the_rows_data() -> None:
    assert "leave it out" in str(rows(["a"], parameters={"data": "b"})[0])
    assert "leave it out" in str(rows([{"a": "b"}], data="a", parameter_columns={"data": "a"})[0])


def test_columns_are_included_in_a_documented_form() -> None:
    missing = float("nan")
    source = [{"text": "a", "price": Decimal("1.10"), "label": "x", "score": missing, "none": None}]
    (row,) = rows(source, data="text", include_columns=("price", "label", "score", "none"))
    assert isinstance(row, Row)
    assert row.columns == {"price": "1.10", "label": "x", "score": None, "none": None}
    (bad,) = rows(source, data="text", include_columns=("lable",))
    assert "it has no column 'lable'" in str(bad)


def test_a_missing_column_to_include_is_one_error(tmp_path: Path) -> None:
    for data in ("text", None):
        with pytest.raises(InvalidInput, match="it has no column 'lable'; there are 'text', 'label'"):
            rows(put(tmp_path, "in.csv", "text,label\na,x\nb,y\n"), data=data, include_columns=("lable",))


def spark(tmp_path: Path, suffix: str, parts: list[bytes]) -> ObjectStoragePath:
    """A folder as Spark writes it."""
    put(tmp_path, "out/_SUCCESS", b"")
    put(tmp_path, "out/._SUCCESS.crc", b"crc")
    for number, content in enumerate(parts):
        put(tmp_path, f"out/part-{number:05}-a{suffix}", content)
        put(tmp_path, f"out/.part-{number:05}-a{suffix}.crc", b"crc")
    return ObjectStoragePath(f"file://{tmp_path}/out")


def in_parquet(**columns: list[Any]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("suffix", "parts"),
    [
        (".snappy.parquet", [in_parquet(text=["a"]), in_parquet(text=["b", "c"])]),
        (".csv", [b"", b"text\na\n", b"text\nb\nc\n", b""]),
        (".csv.gz", [gzip.compress(b"text\na\n"), gzip.compress(b"text\nb\nc\n")]),
        (".json", [b'{"text":"a"}\n', b'{"text":"b"}\n{"text":"c"}\n']),
    ],
)
def test_a_folder_of_spark_is_read(tmp_path: Path, suffix: str, parts: list[bytes], slash: str) -> None:
    source = ObjectStoragePath(f"{spark(tmp_path, suffix, parts)}{slash}")
    assert data_of(rows(source, data="text")) == ["a", "b", "c"]


def test_folders_that_name_columns_are_columns_of_text(tmp_path: Path) -> None:
    put(tmp_path, "out/day=01/name=a%20b/part-0.parquet", in_parquet(text=["a"]))
    put(tmp_path, f"out/day=02/name={readers.NO_PARTITION}/part-0.parquet", in_parquet(text=["b"]))
    source = ObjectStoragePath(f"file://{tmp_path}/out")
    found = rows(source, data="text", include_columns=("day", "name"))
    assert [row.columns for row in found if isinstance(row, Row)] == [
        {"day": "01", "name": "a b"},
        {"day": "02", "name": None},
    ]
    put(tmp_path, "out/text=c/part-0.parquet", in_parquet(text=["c"]))
    with pytest.raises(InvalidInput, match="its folders and its rows have the column 'text'"):
        rows(source, data="text")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "it is a folder without files"),
        ({"_SUCCESS": b""}, "it is a folder without files"),
        ({"a.csv": b"text\n", "b.jsonl": b""}, r"files of several formats: 'file://.*/a\.csv', 'file://.*/b\.jsonl'"),
        ({"a.csv": b"text\na\n", "b.csv": b"b\nc\n"}, r"b\.csv': it has no column 'text'; there are 'b'"),
        ({"a.csv": b"text,b\na,1\n", "b.csv": b"b,text\n"}, r"b\.csv': its first line is .* with the same header"),
        ({"a.csv": b"text\n", "b.xlsx": b""}, r"b\.xlsx': its name has to end with"),
        ({"a.parquet": in_parquet(text=["a"]), "_delta_log/0.json": b"{}"}, "it is a Delta Lake table"),
        ({"data/a.parquet": in_parquet(text=["a"]), "metadata/v1.json": b"{}"}, "it is an Iceberg table"),
        ({"a.parquet": in_parquet(text=["a"]), "b.parquet": in_parquet(txt=["b"])}, r"b\.parquet': it has no column"),
    ],
)
def test_a_folder_is_refused_by_what_it_really_is(tmp_path: Path, files: dict[str, bytes], problem: str) -> None:
    (tmp_path / "out").mkdir()
    for name, content in files.items():
        put(tmp_path, f"out/{name}", content)
    with pytest.raises(InvalidInput, match=problem):
        rows(ObjectStoragePath(f"file://{tmp_path}/out"), data="text")


def test_a_bad_row_of_a_folder_names_its_file(tmp_path: Path) -> None:
    source = spark(tmp_path, ".csv", [b"text,n\na,1\n", b"text,n\nb,1\nc\n"])
    (bad,) = (row for row in rows(source, data="text") if isinstance(row, BadRow))
    assert str(bad) == "part-00001-a.csv line 3: it has 1 values for 2 columns"


def test_a_repeated_parquet_column_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "in.parquet")
    with pytest.raises(InvalidInput, match="it has two columns named 'text'"):
        rows(ObjectStoragePath(f"file://{tmp_path}/in.parquet"), data="text")


def test_a_folder_of_parquet_in_object_storage_is_read(objects: str) -> None:
    for slash in ("", "/"):
        root = f"{objects}/spark{len(slash)}{time.monotonic_ns()}"
        for name, content in {
            "_SUCCESS": b"",
            "day=01/part-0.snappy.parquet": in_parquet(id=[1], text=["a"]),
            "day=02/part-0.snappy.parquet": in_parquet(id=[2], text=["b"]),
        }.items():
            path = ObjectStoragePath(f"{root}/{name}")
            path.fs.pipe_file(path.path, content)
        found = rows(ObjectStoragePath(f"{root}{slash}"), data="text", key="id", include_columns=("day",))
        assert found == [Row(1, '{"data": "a"}', {"day": "01"}), Row(2, '{"data": "b"}', {"day": "02"})]
    with pytest.raises(InvalidInput, match="there is no such file or folder"):
        rows(ObjectStoragePath(f"{objects}/nothing"), data="text")


class RemoteFile(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        self.fs.fetched += end - start
        return bytes(self.fs.content[start:end])


class Remote(AbstractFileSystem):  # type: ignore[misc]
    """A storage with one file, which reads blocks ahead as those for object storages do."""

    cachable = False

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content, self.fetched = content, 0

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": len(self.content), "type": "file"}

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **_: Any) -> RemoteFile:
        return RemoteFile(self, path, mode, block_size or "default")


def test_columns_far_apart_are_fetched_once() -> None:
    texts = [random.randbytes(500).hex() for _ in range(8_000)]
    storage = Remote(in_parquet(a=texts, b=texts[::-1]))
    source = SimpleNamespace(fs=storage, path="in.parquet")
    assert len(rows(source, data={"a": "a", "b": "b"})) == len(texts)
    size = len(storage.content)
    assert size <= storage.fetched < 1.2 * size


def test_a_temporary_storage_error_can_be_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put(tmp_path, "in.csv", "text\na\n")
    for error, kind in (
        (OSError(5, "Input/output error"), OSError),
        (TimeoutError("slow"), TimeoutError),
        (PermissionError("Access Denied"), InvalidInput),
        (FileNotFoundError("gone"), InvalidInput),
        (OSError("Couldn't deserialize thrift"), InvalidInput),
    ):

        def fail(*_: Any, error: OSError = error, **__: Any) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(type(source.fs), "open", fail)
            with pytest.raises(kind):
                rows(source, data="text")


# Characters that mean something to a reader more often than others
SPECIAL = st.sampled_from("\"\r\n\t ,;|\\\ufeff'")
CELL = st.text(SPECIAL | st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
DELIMITER = st.sampled_from(",;\t| :^x\u20ac")
FUZZ = settings(max_examples=examples(), deadline=None)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    header = draw(st.lists(CELL.filter(bool), min_size=1, max_size=4, unique=True))
    width = len(header)
    return header, draw(st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=5))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bytes], ObjectStoragePath]:
    """Writes a file, whose path is created only once."""
    folder = tmp_path_factory.mktemp("fuzz")
    paths: dict[str, ObjectStoragePath] = {}

    def write(name: str, content: bytes) -> ObjectStoragePath:
        (folder / name).write_bytes(content)
        if name not in paths:
            paths[name] = ObjectStoragePath(f"file://{folder}/{name}")
        return paths[name]

    return write


@FUZZ
@given(
    tables(),
    DELIMITER,
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-le"]),
    st.integers(1, 50),
)
def test_csv_is_read_back_as_written(
    path: Any, table: Any, delimiter: str, end: str, quoting: Any, encoding: str, chunk: int
) -> None:
    header, cells = table
    # Some versions of `csv` do not quote a carriage return that is not the line end: nothing can read that back.
    unquoted = {"\n": "\r", "\r": "\n"}.get(end) if quoting == csv.QUOTE_MINIMAL else None
    assume(not unquoted or not any(unquoted in text for text in chain(header, *cells)))
    # A mark at the beginning is no part of the first name, and neither is a second one.
    has_own_mark = encoding in ("utf-8-sig", "utf-16") and quoting != csv.QUOTE_MINIMAL
    assume(not header[0].startswith("\ufeff") or has_own_mark)
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([header, *cells])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "CHUNK_SIZE", chunk)
        found = rows(path("in.csv", file.getvalue().encode(encoding)), encoding, delimiter)
    expected = [dict(zip(header, row, strict=True)) for row in cells]
    assert [json.loads(row.payload) if isinstance(row, Row) else row for row in found] == expected


@FUZZ
@given(tables(), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_json_is_read_back_as_written(path: Any, table: Any, end: str) -> None:
    header, cells = table
    values = [dict(zip(header, row, strict=True)) for row in cells]
    found = rows(path("in.jsonl", end.join(json.dumps(value, ensure_ascii=False) for value in values).encode()))
    assert [json.loads(row.payload) if isinstance(row, Row) else row for row in found] == values


def read_or_refuse(source: Any, **arguments: Any) -> None:
    """Read a source; only the project's own error may be raised."""
    mapping = {"data": "text", "key": "id"} if arguments.pop("named") else {}
    try:
        found = rows(source, **arguments, **mapping)
    except InvalidInput as error:
        assert "input is" in str(error)  # noqa: PT017
    else:
        assert all(isinstance(row, (Row, BadRow)) for row in found)


@st.composite
def damaged(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """Bytes; or a valid file with some of them cut out, changed, put in or repeated."""
    content = bytearray(draw(st.sampled_from(valid) | st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 8)))
        special = st.sampled_from(
            [b'"', b"\r", b"\n", b",", b"\0", b"\xff", b"{", b"[", b"\\", b"\xef\xbb\xbf", b"PAR1"]
        )
        content[start:end] = draw(special | st.binary(max_size=8) | st.just(bytes(content[start:end]) * 2))
    return bytes(content)


VALID_CSV = [
    b'id,text\n1,"a, ""b""\nc"\n2,d\n',
    "\ufeffid;text\r\n1;é\r\n".encode(),
    "sep=\t\r\nid\ttext\r\n1\ta\r\n".encode("utf-16"),
    gzip.compress(b"id,text\n1,a\n2,b\n"),
]
VALID_JSON = [
    b'{"id": 1, "text": "a"}\n{"id": 2, "text": {"b": [1.5, null, "\\ud83d\\ude00"]}}\n',
    gzip.compress(b"[1]\n{}"),
]


@FUZZ
@given(
    damaged(VALID_CSV),
    st.sampled_from(["in.csv", "in.tsv", "in.csv.gz"]),
    st.sampled_from(["utf-8", "utf-16", "cp1252", "shift_jis", "utf-7"]),
    st.none() | DELIMITER,
    st.booleans(),
)
def test_any_csv_is_read_or_refused(
    path: Any, content: bytes, name: str, encoding: str, delimiter: Any, named: bool
) -> None:
    read_or_refuse(path(name, content), encoding=encoding, delimiter=delimiter, named=named)


@FUZZ
@given(damaged(VALID_JSON), st.sampled_from(["in.jsonl", "in.json"]), st.booleans())
def test_any_json_lines_are_read_or_refused(path: Any, content: bytes, name: str, named: bool) -> None:
    read_or_refuse(path(name, content), named=named)


def _valid_parquet() -> list[bytes]:
    table = {
        "id": [1, 2, 3],
        "text": ["a", "b", None],
        "price": [Decimal("1.10"), None, Decimal("2")],
        "at": [datetime.datetime(2026, 1, 1), None, None],
        "list": [["x"], [], None],
    }
    found = []
    for options in ({"compression": "none", "use_dictionary": False}, {"compression": "snappy"}, {"version": "1.0"}):
        file = io.BytesIO()
        parquet.write_table(pyarrow.table(table), file, **options)
        found.append(file.getvalue())
    return found


@FUZZ
@given(damaged(_valid_parquet()), st.booleans())
def test_any_parquet_is_read_or_refused(path: Any, content: bytes, named: bool) -> None:
    read_or_refuse(path("in.parquet", content), named=named)


def long_cell(size: int) -> bytes:
    return b'text\n"' + b'a ""quote"", and\n' * size + b'"\n'


def many_rows(size: int) -> bytes:
    return b"id,text\n" + b'1,"a ""b"""\n' * size


def wide(size: int) -> bytes:
    return ",".join(["text", *(f"c{number}" for number in range(size))]).encode() + b"\n" + b"," * size + b"\n"


def json_line(size: int) -> bytes:
    return b'{"text": "' + b'\\"a' * size + b'"}\n'


def json_object(size: int) -> bytes:
    return json.dumps({"text": "a", **{f"c{number}": number for number in range(size)}}).encode()


@pytest.mark.parametrize(
    ("name", "make", "size"),
    [
        ("in.csv", long_cell, 30_000),
        ("in.csv", many_rows, 10_000),
        ("in.csv", wide, 30_000),
        ("in.jsonl", json_line, 200_000),
        ("in.jsonl", json_object, 20_000),
    ],
)
def test_four_times_the_file_takes_four_times_the_work(path: Any, name: str, make: Any, size: int) -> None:
    def work(size: int) -> float:
        source = path(name, make(size))
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            rows(source, data="text")
            best = min(best, time.process_time() - start)
        return best

    assert work(4 * size) <= 8 * work(size) + 0.05


def test_the_signature_of_a_url_is_not_shown() -> None:
    class Signed:
        fs, path = ObjectStoragePath("file:///").fs, "/no/such/in.csv"

        def __str__(self) -> str:
            return "https://host.example/in.csv?signature=s3cret"

    with pytest.raises(InvalidInput, match="there is no such file") as raised:
        list(readers.read_records(Signed(), (), "utf-8", None, is_whole=True))
    assert "s3cret" not in str(raised.value)
