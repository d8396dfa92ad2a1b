"""Map the rows of a batch's input to the inputs of runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, time
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from typing import IO, TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from airflow_provider_aixplain.files import refuse_upload
from airflow_provider_aixplain.inputs.readers import read_records
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.payload import ModelInput
from airflow_provider_aixplain.protocol.values import NOT_JSON, to_printable, to_sendable, to_storable

if TYPE_CHECKING:
    from airflow_provider_aixplain.protocol.agent import AgentInput

T = TypeVar("T")

MAX_WHOLE_FLOAT = 2**53
"""Up to this number, each integer has a float of its own."""

SHOWN_BAD_ROWS = 20
"""The maximum number of bad rows that a message names."""


@dataclass(frozen=True)
class Row:
    """The input of one run.

    :param key: the key of its result: a string or integer.
    :param payload: the body of its run, as JSON.
    :param columns: the input columns that its result repeats, by name.
    """

    key: str | int
    payload: str
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BadRow:
    """A row that is not valid input.

    :param line: the line of its file where it begins, or its number in a list or a Parquet file, from 1.
    :param reason: what is wrong with it.
    :param file: the name of its file, if the input is a folder.
    """

    line: int
    reason: str
    file: str = ""

    @property
    def place(self) -> str:
        """The file and line of the row, as text."""
        return f"{self.file} line {self.line}".lstrip()

    def __str__(self) -> str:
        """Return the place and the reason."""
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True)
class Mapper:
    """Converts rows to the inputs of runs.

    A value of a column is sent unchanged: text is never read as JSON or a number, and no value sets parameters.
    Decimals are sent as their exact text, dates and times in ISO 8601, UUIDs as text.

    :param data: the column with ``data``, or with the ``input`` of an agent's query; or a mapping from the names of
        the fields of payload or query to columns; or None: the row itself is the payload or query if it is an object,
        and ``data`` or ``input`` if it is anything else.
    :param parameters: parameters of all runs, or variables of all queries, by name.
    :param parameter_columns: parameters or variables that are columns, by name.
    :param key: the column with the key; None: the number of the row, from 1.
    :param include_columns: the columns that the result repeats.
    :param shared: the input that all runs share, without that of the row; default: a model's.
    :raises InvalidInput: if parameters would replace the ``data`` or ``input`` that a column holds.
    """

    data: str | Mapping[str, str] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parameter_columns: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    include_columns: Collection[str] = ()
    shared: ModelInput | AgentInput = field(default_factory=lambda: ModelInput("", None))

    @property
    def columns(self) -> set[str]:
        """The columns that each row must have."""
        data = [self.data] if isinstance(self.data, str) else (self.data or {}).values()
        key = [] if self.key is None else [self.key]
        return {*data, *self.parameter_columns.values(), *self.include_columns, *key}

    def row(self, number: int, value: Any) -> Row:
        """Return the input of the run of a row.

        :param number: of the row, from 1.
        :raises InvalidInput: if the row is not valid input.
        """
        parameters = {
            **self.parameters,
            **{name: _column(value, column) for name, column in self.parameter_columns.items()},
        }
        key = number if self.key is None else _key(_column(value, self.key))
        included = {name: self._included_value(value, name) for name in self.include_columns}
        fields: Mapping[str, Any]
        if isinstance(self.data, Mapping):
            fields = {name: _column(value, column) for name, column in self.data.items()}
        elif self.data is None and isinstance(value, Mapping):
            fields = value
        else:
            name, single = self.shared.row_name, value if self.data is None else _column(value, self.data)
            if single is None or (isinstance(single, str) and not single.strip()):
                problem = "None" if single is None else "an empty text"
                raise InvalidInput(f"{name} is {problem}: the row has no input for the {self.shared.asset.kind}")
            if name in parameters:
                raise InvalidInput(f"parameters hold {name!r} too, which is the row's: leave it out")
            fields = {name: _sendable(single, name)}
        return Row(key, self.shared.with_row(fields, parameters).body(convert), included)

    @staticmethod
    def _included_value(row: Any, name: str) -> Any:
        value = _column(row, name)
        return None if _is_missing(value) else _sendable(value, f"column {name!r}")


def convert(value: Any) -> Any:
    """Return what is sent for a value that JSON cannot hold but tables have, or ``NOT_JSON``.

    :raises InvalidInput: if it is a file to upload.
    """
    if type(value).__name__ == "ndarray" and value.shape:
        return [to_sendable(item, "an item of an array", convert) for item in value]
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else NOT_JSON
    if _is_missing(value):
        return NOT_JSON
    if isinstance(value, (date, time)):
        return value.isoformat()
    # A number, boolean or time of numpy
    kind = value.dtype.kind if getattr(value, "shape", None) == () else ""
    if kind == "f" and (value.dtype.itemsize > 8 or not math.isfinite(value)):
        return NOT_JSON
    kinds: dict[str, Callable[[Any], Any]] = {"b": bool, "i": int, "u": int, "f": float, "M": str}
    return kinds[kind](value) if kind in kinds else refuse_upload(value)


def _is_missing(value: Any) -> bool:
    """Return whether a value is None, or one of those that numpy and pandas have in its place: NaN, NaT or NA."""
    if isinstance(value, Decimal):
        return value.is_nan()
    is_scalar = isinstance(value, (Real, date)) or getattr(value, "shape", None) == ()
    return value is None or type(value).__name__ == "NAType" or (is_scalar and bool(value != value))


def _sendable(value: Any, path: str) -> Any:
    try:
        return to_sendable(value, path, convert)
    except RecursionError:
        raise InvalidInput(f"{path} contains itself, or nests too deeply to be sent as JSON") from None


def _key(value: Any) -> str | int:
    """Return a value as a key: a string, or an integer of any numeric type.

    :raises InvalidInput: if it is neither, or Airflow cannot store it.
    """
    key: Any = value.value if isinstance(value, Enum) else value
    if isinstance(key, bool):
        key = None
    elif isinstance(key, Integral):
        key = int(key)
    elif isinstance(key, Decimal):
        key = int(key) if key.is_finite() and abs(key) < 2**64 and key == int(key) else None
    elif isinstance(key, Real):
        number: Any = key
        key = int(number) if abs(number) <= MAX_WHOLE_FLOAT and number == int(number) else None
    elif isinstance(key, (str, UUID)):
        key = str(key)
    if key == "":
        raise InvalidInput("the key is an empty text")
    if not isinstance(key, (str, int)):
        raise InvalidInput(f"the key {value!r:.100} is neither a string nor an integer")
    if isinstance(key, int) and not -(2**63) <= key < 2**63:
        raise InvalidInput("the key is a number of more than 64 bits, which Airflow cannot store: use a string")
    if to_storable(key) != key:
        raise InvalidInput(f"the key {key!r:.100} has a character that Airflow cannot store: use another string")
    return key


def _column(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"it has no column {name!r}: it is a {type(value).__name__}")
    if name not in value:
        raise InvalidInput(f"it has no column {name!r}; there are {', '.join(map(str, value)) or 'none'}")
    return value[name]


def read(source: Any, mapper: Mapper, encoding: str = "utf-8", delimiter: str | None = None) -> Iterator[Row | BadRow]:
    """Read rows in a stream.

    :param source: a list or an iterator; or an ``ObjectStoragePath`` of a file of JSON lines, CSV with a header or
        Parquet, by the end of its name, or of a folder of such files.
    :param mapper: converts the rows.
    :param encoding: the encoding of text files.
    :param delimiter: the delimiter of CSV files; None: a comma, or a tab in ``.tsv`` files.
    :raises InvalidInput: if the source cannot be read at all.
    :raises OSError: if the storage fails in a way that a retry may overcome.
    """
    keys: set[str] = set()
    records = read_records(source, mapper.columns, encoding, delimiter, is_whole=mapper.data is None)
    for number, record in enumerate(records, start=1):
        try:
            if record.problem:
                raise InvalidInput(record.problem)
            row = mapper.row(number, record.value)
            if mapper.key is not None:
                # Compared as text, because results in Parquet hold keys as text.
                if str(row.key) in keys:
                    raise InvalidInput(f"the key {row.key!r:.100} is that of an earlier row too")
                keys.add(str(row.key))
        except InvalidInput as error:
            yield BadRow(record.line, to_printable(error), record.file)
        else:
            yield row


class InputScan:
    """Yields the rows of an input, and counts and fingerprints them.

    :param values: the rows and the bad rows.
    :param url: the URL to which the rows are submitted; a part of the fingerprint.
    :ivar rows: the number of rows so far.
    :ivar bad_rows: the number of bad rows so far.
    :ivar first_bad_rows: the first of those.
    """

    def __init__(self, values: Iterable[Row | BadRow], url: str) -> None:
        self._values = values
        self._hash = hashlib.sha256(url.encode())
        self.rows = self.bad_rows = 0
        self.first_bad_rows: list[BadRow] = []

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that are not bad."""
        for value in self._values:
            if isinstance(value, Row):
                self._hash.update(json.dumps([value.key, value.payload, value.columns]).encode())
                self.rows += 1
                yield value
            else:
                self.bad_rows += 1
                if len(self.first_bad_rows) < SHOWN_BAD_ROWS:
                    self.first_bad_rows.append(value)

    @property
    def fingerprint(self) -> str:
        """A hash of the rows so far and the URL."""
        return self._hash.hexdigest()

    def summarize_bad_rows(self) -> str:
        """Return the reasons of the first bad rows, each once, after the lines that have it."""
        places: dict[str, list[str]] = {}
        for row in self.first_bad_rows:
            places.setdefault(row.reason, []).append(row.place)
        return "; ".join(f"{', '.join(lines)}: {reason}" for reason, lines in places.items())


def take(items: Iterator[T], count: int, size: int) -> list[T]:
    """Return the next items of an iterator.

    :param count: the maximum number of items.
    :param size: characters of items, as text, after which no further item is taken.
    """
    taken: list[T] = []
    while len(taken) < count and size > 0 and (item := next(items, None)) is not None:
        taken.append(item)
        size -= len(str(item))
    return taken


def encode_rows(rows: Iterable[Row]) -> Iterator[bytes]:
    """Return rows as the lines of a file, which :func:`decode_rows` reads."""
    for row in rows:
        yield json.dumps({"key": row.key, "payload": row.payload, "columns": row.columns}).encode() + b"\n"


def write_spool(values: Iterable[Row | BadRow], file: IO[bytes]) -> Iterator[Row | BadRow]:
    """Yield values and write each to a file, which :func:`read_spool` reads."""
    for value in values:
        file.write(json.dumps([isinstance(value, Row), asdict(value)]).encode() + b"\n")
        yield value


def read_spool(file: IO[bytes]) -> Iterator[Row | BadRow]:
    """Yield the values that :func:`write_spool` has written."""
    file.seek(0)
    for line in file:
        is_row, value = json.loads(line)
        yield (Row if is_row else BadRow)(**value)


def decode_rows(lines: Iterable[bytes]) -> Iterator[Row]:
    """Return the rows that :func:`encode_rows` has written."""
    for line in lines:
        yield Row(**json.loads(line))
