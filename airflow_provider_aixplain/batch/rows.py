"""The rows of a batch: read in a stream, and made the input of a run each."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_aixplain.files import no_upload
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.payload import build_payload
from airflow_provider_aixplain.protocol.values import NOT_JSON, parse

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

FORMATS = ("jsonl", "csv", "parquet")


@dataclass(frozen=True)
class Row:
    """One run's input.

    :param key: what its result is found by: text or a number.
    :param payload: the body of its run, as JSON.
    """

    key: str | int
    payload: str


@dataclass(frozen=True)
class BadRow:
    """A row that is no input.

    :param line: where it stands: the line of a file, or the place in a list, from 1.
    :param reason: what is wrong with it.
    """

    line: int
    reason: str

    def __str__(self) -> str:
        """Return both, for people."""
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True)
class Mapper:
    """Makes the input of a run of a row.

    :param data: the column with the run's ``data``; or a mapping from the names of its fields to columns; or None: the
        row itself is the ``data``.
    :param parameters: parameters of all runs, by name.
    :param parameter_columns: parameters that are columns, by name.
    :param key: the column with the key; None: the number of the row, from 1.
    """

    data: str | Mapping[str, str] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parameter_columns: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None

    def row(self, number: int, value: Any) -> Row:
        """Return the input that a row makes.

        :param number: of the row, from 1.
        :raises InvalidInput: saying what is wrong with the row.
        """
        data = value
        if isinstance(self.data, str):
            data = _column(value, self.data)
        elif self.data is not None:
            data = {name: _column(value, column) for name, column in self.data.items()}
        own = {name: _column(value, column) for name, column in self.parameter_columns.items()}
        key = number if self.key is None else _column(value, self.key)
        if isinstance(key, bool) or not isinstance(key, (str, int)) or key == "":
            raise InvalidInput(f"the key {key!r} is neither a text nor a whole number")
        return Row(key, build_payload(data, {**self.parameters, **own}, convert=no_upload))


def _column(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"it has no column {name!r}: it is a {type(value).__name__}")
    if name not in value:
        raise InvalidInput(f"it has no column {name!r}; there are {', '.join(map(str, value)) or 'none'}")
    return value[name]


def read(source: Sequence[Any] | Iterator[Any] | ObjectStoragePath, mapper: Mapper) -> Iterator[Row | BadRow]:
    """Read rows in a stream.

    :param source: a list, an iterator, or a file of JSON lines, CSV with a header, or Parquet, as the end of its name
        says.
    :param mapper: makes inputs of them.
    :raises InvalidInput: if the source cannot be read at all.
    """
    keys: set[str | int] = set()
    for number, (line, value) in enumerate(_values(source), start=1):
        if isinstance(value, BadRow):
            yield value
            continue
        try:
            row = mapper.row(number, value)
            if mapper.key is not None:
                if row.key in keys:
                    raise InvalidInput(f"the key {row.key!r} is that of an earlier row too")
                keys.add(row.key)
        except InvalidInput as error:
            yield BadRow(line, str(error))
        else:
            yield row


def _values(source: Any) -> Iterator[tuple[int, Any]]:
    if isinstance(source, (Sequence, Iterator)) and not isinstance(source, (str, bytes)):
        return enumerate(source, start=1)
    if not hasattr(source, "open"):
        raise InvalidInput(f"input is a {type(source).__name__}: give a list, or the URI of a file")
    kind = source.name.rpartition(".")[2].lower()
    kind = {"json": "jsonl", "ndjson": "jsonl"}.get(kind, kind)
    if kind not in FORMATS:
        raise InvalidInput(f"input is {str(source)!r}: its name has to end with .{', .'.join(FORMATS)}")
    if not source.is_file():
        raise InvalidInput(f"input is {str(source)!r}, and there is no such file")
    return {"jsonl": _json_lines, "csv": _csv_lines, "parquet": _parquet_rows}[kind](source)


def _json_lines(path: ObjectStoragePath) -> Iterator[tuple[int, Any]]:
    with _opened(path, "rb") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                value = parse(text.decode())
            except UnicodeDecodeError as error:
                value, text = NOT_JSON, str(error).encode()
            yield line, BadRow(line, f"it is no JSON: {text[:80]!r}") if value is NOT_JSON else value


def _csv_lines(path: ObjectStoragePath) -> Iterator[tuple[int, Any]]:
    with _opened(path, "r", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            header = next(reader)
        except StopIteration:
            raise InvalidInput(f"input is {str(path)!r}, and it is empty: its first line has to name columns") from None
        if len(set(header)) != len(header):
            raise InvalidInput(f"input is {str(path)!r}, and a column's name stands twice in its first line")
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, BadRow(line, f"it is no CSV: {error}")
                continue
            if not values:
                continue
            if len(values) != len(header):
                yield line, BadRow(line, f"it has {len(values)} values for {len(header)} columns")
            else:
                yield line, dict(zip(header, values, strict=True))


def _parquet_rows(path: ObjectStoragePath) -> Iterator[tuple[int, Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise InvalidInput("input is Parquet: pip install 'airflow-provider-aixplain[parquet]'") from None
    with _opened(path, "rb") as file:
        line = 0
        for batch in parquet.ParquetFile(file).iter_batches():
            for value in batch.to_pylist():
                line += 1
                yield line, value


def _opened(path: ObjectStoragePath, mode: str, **kwargs: Any) -> Any:
    """Open a file: what Airflow 2.11's own ``open`` returns cannot be read line by line."""
    return path.fs.open(path.path, mode, **kwargs)


class Fingerprint:
    """Tells whether two inputs are the same, row by row, and runs go to the same place.

    :param url: where runs are submitted.
    """

    def __init__(self, url: str) -> None:
        self._hash = hashlib.sha256(url.encode())

    def add(self, row: Row) -> None:
        """Take one more row in."""
        self._hash.update(json.dumps([row.key, row.payload]).encode())

    def __str__(self) -> str:
        """Return it as text."""
        return self._hash.hexdigest()


def stored(rows: Iterable[Row]) -> Iterator[bytes]:
    """Return rows as the lines of a file, which :func:`restored` reads."""
    for row in rows:
        yield json.dumps({"key": row.key, "payload": row.payload}).encode() + b"\n"


def spooled(values: Iterable[Row | BadRow], file: IO[bytes]) -> Iterator[Row | BadRow]:
    """Yield values and write each to a file, which :func:`unspooled` reads."""
    for value in values:
        file.write(json.dumps([isinstance(value, Row), asdict(value)]).encode() + b"\n")
        yield value


def unspooled(file: IO[bytes]) -> Iterator[Row | BadRow]:
    """Yield the values that :func:`spooled` has written."""
    file.seek(0)
    for line in file:
        is_row, value = json.loads(line)
        yield (Row if is_row else BadRow)(**value)


def restored(lines: Iterable[bytes]) -> Iterator[Row]:
    """Return the rows that :func:`stored` has written."""
    for line in lines:
        yield Row(**json.loads(line))
