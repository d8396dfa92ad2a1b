"""Read the rows of a batch's input in a stream: a list, a file, or a folder of files."""

from __future__ import annotations

import codecs
import csv
import errno
import gzip
import io
import json
import re
import threading
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple
from urllib.parse import unquote

from airflow_provider_aixplain.files import to_printable_path
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.values import join_names, parse_finite_float, to_printable

MAX_RECORD_LENGTH = 16 * 1024 * 1024
"""Characters of the longest line of JSON, or row of CSV, that is read."""

HEADER_LENGTH = 1024 * 1024
"""Characters of a CSV file in which the first line end is looked for."""

CHUNK_SIZE = 64 * 1024
"""Bytes of a file that are decoded at once."""

PARQUET_ROWS = 1000
"""Rows of a Parquet file that are decoded at once, unless they are large."""

PARQUET_SIZE = 16 * 1024 * 1024
"""Bytes of rows of a Parquet file that are decoded at once. A larger row is decoded alone."""

MAX_NAMES = 20
"""Columns, or files, that an error names."""

DELIMITERS = ",;\t|"
"""Delimiters that are recognized in a header, to report that another one was meant."""

FORMATS = {
    "jsonl": "read_json_lines",
    "ndjson": "read_json_lines",
    "json": "read_json_lines",
    "csv": "read_csv",
    "tsv": "read_csv",
    "txt": "read_csv",
    "parquet": "read_parquet",
}
"""The method of :class:`Reader` for each end of a file's name."""

OTHER_FORMATS = {
    **dict.fromkeys(("xlsx", "xlsm", "xlsb", "xls", "ods"), "a workbook: save it as 'CSV UTF-8'"),
    **dict.fromkeys(("bz2", "xz", "zst", "lz4", "snappy", "deflate", "zip", "7z", "tar", "tgz"), "packed: unpack it"),
    **dict.fromkeys(("avro", "orc", "feather", "arrow"), "in another format: convert it to Parquet"),
    **dict.fromkeys(("xml", "html", "htm", "yaml", "yml"), "in another format: convert it to JSON lines"),
}
"""What a file is, and the remedy, by the end of a name that is not read."""

SIGNATURES = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: save the workbook as 'CSV UTF-8', or unpack the archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as 'CSV UTF-8'",
    b"PAR1\x15": "Parquet: let its name end with .parquet",
    b"Obj\x01": "Avro: convert it to Parquet",
    b"BZh91AY": "compressed with bzip2: unpack it",
    b"\xfd7zXZ": "compressed with xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
}
"""What a text file really is, by its first bytes, and the remedy."""

GZIP = b"\x1f\x8b"

END_OF_FILE = "\x1a"
"""Written by DOS programs after the last line."""

BYTE_ORDER_MARKS = {  # UTF-32's begins with UTF-16's
    codecs.BOM_UTF8: ("utf-8", "utf-8-sig"),
    codecs.BOM_UTF32_LE: ("utf-32", "utf-32-le"),
    codecs.BOM_UTF32_BE: ("utf-32", "utf-32-be"),
    codecs.BOM_UTF16_LE: ("utf-16", "utf-16-le"),
    codecs.BOM_UTF16_BE: ("utf-16", "utf-16-be"),
}
"""The encodings of a text that begins with a mark."""

TABLES = {"_delta_log": "a Delta Lake", ".hoodie": "a Hudi", "metadata": "an Iceberg"}
"""Kinds of tables, by the name of a folder in them. Only their own readers know which files hold current rows."""

NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""Spark's and Hive's name of the folder of a partition whose value is null."""

PERMANENT_ERRORS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
PERMANENT_ERRNOS = (errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG, errno.EROFS)


def is_permanent(error: OSError) -> bool:
    """Return whether reading or writing the same path again fails in the same way."""
    return isinstance(error, PERMANENT_ERRORS) or error.errno in PERMANENT_ERRNOS


class Record(NamedTuple):
    """One row as its file holds it.

    :param value: the row: a dict from the names of columns to values, or any JSON value.
    :param line: the line of the file where it begins, or its number in a list or a Parquet file, from 1.
    :param problem: why the row cannot be read; empty if it can.
    :param file: the name of the file in a folder.
    """

    value: Any
    line: int
    problem: str = ""
    file: str = ""


class File(NamedTuple):
    """A file of the input.

    :param filesystem: an ``fsspec`` filesystem.
    :param path: the file's path there.
    :param uri: the name of the file in errors.
    """

    filesystem: Any
    path: str
    uri: str

    def error(self, reason: object) -> InvalidInput:
        """Return the error for a file that cannot be read."""
        return InvalidInput(f"input is {self.uri!r}: {to_printable(reason)}")

    @property
    def suffix(self) -> str:
        """The end of the name, in lower case and without ``.gz``."""
        name = self.path.rpartition("/")[2].lower().removesuffix(".gz")
        return name.rpartition(".")[2] if "." in name else ""

    def check_format(self) -> str:
        """Return which method of :class:`Reader` reads the file.

        :raises InvalidInput: if none does, naming what the file is and the remedy.
        """
        suffix = self.suffix
        if suffix not in FORMATS:
            reason = f"; it is {OTHER_FORMATS[suffix]}" if suffix in OTHER_FORMATS else ""
            raise self.error(
                "its name has to end with .jsonl, .csv, .parquet, or with .ndjson, .json, .tsv, .txt; and text files"
                f" may be compressed (.csv.gz){reason}"
            )
        if suffix == "parquet" and self.path.lower().endswith(".gz"):
            raise self.error("it is compressed as a whole: unpack it; Parquet is compressed inside")
        return FORMATS[suffix]


def read_records(
    source: Any, columns: Collection[str], encoding: str, delimiter: str | None, *, is_whole: bool
) -> Iterator[Record]:
    """Read rows in a stream.

    :param source: a list, an iterator, or an ``ObjectStoragePath`` of a file or folder.
    :param columns: the columns that a file has to have.
    :param encoding: of text files.
    :param delimiter: of CSV files; None: a comma, or a tab in ``.tsv`` files.
    :param is_whole: whether whole rows are sent, so that all columns of a file are read.
    :raises InvalidInput: if the source cannot be read as a whole, naming the file, the line and the remedy.
    :raises OSError: if the storage fails in a way that a retry may overcome.
    """
    if isinstance(source, (Sequence, Iterator)) and not isinstance(source, (str, bytes)):
        return (Record(value, line) for line, value in enumerate(source, start=1))
    if not hasattr(source, "fs"):
        raise InvalidInput(
            f"input is a {type(source).__name__}: give a list (such as a DataFrame's to_dict('records')), or the URI of"
            " a file or folder"
        )
    # The filesystem opens the files: what `ObjectStoragePath.open` of Airflow 2.11 returns cannot be read in parts.
    root = File(source.fs, str(source.path).rstrip("/"), to_printable_path(source))
    reader = Reader(columns, encoding, delimiter, is_whole=is_whole)
    try:
        root.filesystem.invalidate_cache()  # another process may have written since
        if root.filesystem.isfile(root.path):
            return reader.read(root)
        if root.filesystem.isdir(root.path):
            return reader.read_folder(root)
    except OSError as error:
        if is_permanent(error):
            raise root.error(error) from None
        raise
    if root.suffix in OTHER_FORMATS:
        root.check_format()
    raise InvalidInput(f"input is {root.uri!r}, and there is no such file or folder")


class Reader:
    """Read files of one input.

    :param columns: the columns that a file has to have.
    :param encoding: of text files.
    :param delimiter: of CSV files; None: a comma, or a tab in ``.tsv`` files.
    :param is_whole: whether whole rows are sent, so that all columns of a file are read.
    :raises InvalidInput: if there is no such encoding, or the delimiter is not one character.
    """

    def __init__(self, columns: Collection[str], encoding: str, delimiter: str | None, *, is_whole: bool) -> None:
        self._columns = set(columns)
        self._is_whole = is_whole
        self._delimiter = delimiter
        self._is_folder = False
        self._partition: set[str] = set()
        self._header: list[str] | None = None  # of the first CSV file
        try:
            io.TextIOWrapper(io.BytesIO(), encoding=encoding or "")  # refuses codecs that are not of text
            self._encoding = codecs.lookup(encoding).name
            codecs.getincrementaldecoder(encoding)
        except (LookupError, TypeError, ValueError):
            raise InvalidInput(
                f"encoding is {encoding!r}: give the name of a Python codec, such as utf-8, utf-16 or cp1252"
            ) from None
        if delimiter is not None and (
            not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n\0\ufeff'
        ):
            raise InvalidInput(f"delimiter is {delimiter!r}: give one character, such as ';' or a tab, '\\t'")

    def read(self, file: File) -> Iterator[Record]:
        """Read one file."""
        method = getattr(self, file.check_format())
        try:
            yield from method(file)
        except InvalidInput:
            raise
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise file.error(f"it is damaged, or was not written to its end: {error}") from None
        except OSError as error:
            is_from_arrow = type(error) is OSError and error.errno is None
            if is_permanent(error) or is_from_arrow:
                raise file.error(error) from None
            raise

    def read_folder(self, folder: File) -> Iterator[Record]:
        """Read all files below a folder, in the order of their paths. ``NAME=value`` folders are columns of text."""
        files = list(_find_files(folder))
        if not files:
            raise folder.error("it is a folder without files")
        formats: dict[str, File] = {}
        for file in files:
            formats.setdefault(file.check_format(), file)
        if len(formats) > 1:
            raise folder.error(f"it has files of several formats: {_quote([file.uri for file in formats.values()])}")
        self._is_folder, columns = True, self._columns
        for file in files:
            name = file.path[len(folder.path) + 1 :]
            partition = dict(_read_partition(name))
            self._partition = set(partition)
            self._columns = columns - self._partition
            for record in self.read(file):
                value = record.value
                if partition and isinstance(value, dict):
                    self._check_partition(value, file)
                    value = {**value, **partition}
                yield record._replace(value=value, file=name)

    def read_json_lines(self, file: File) -> Iterator[Record]:
        """Read a file with a JSON value in each line."""
        for line, text in enumerate(self._lines(file), start=1):
            text = text.strip(" \t\r\n")
            if not text:
                continue
            try:
                value = parse_json(text)
            except json.JSONDecodeError as error:
                if error.pos >= len(text) or error.msg.startswith("Unterminated string"):
                    # Parts of a value that spans lines may be values too, and would become rows.
                    raise file.error(
                        f"line {line} holds only the beginning of a JSON value: write each row as one line"
                        " (an array: jq -c '.[]' FILE; objects: jq -c . FILE)"
                    ) from None
                yield Record(None, line, f"invalid JSON: {error.msg} at character {error.pos + 1}: {text[:80]!r}")
            except (ValueError, RecursionError) as error:
                yield Record(None, line, f"invalid JSON: {to_printable(error)}")
            else:
                if isinstance(value, list) and file.suffix == "json":
                    raise file.error(
                        f"line {line} is a JSON array: write each row as one line (jq -c '.[]' FILE), or let the name"
                        " end with .jsonl if an array is one row"
                    )
                yield Record(value, line)

    def read_csv(self, file: File) -> Iterator[Record]:
        """Read a file of delimiter-separated text, whose first line names the columns."""
        if file.suffix == "txt" and self._delimiter is None:
            raise file.error(
                "name the delimiter of a text file: delimiter='\\t' with encoding='utf-16' for what Excel saves as"
                " 'Unicode Text'"
            )
        text = _CsvText(self._lines(file, is_csv=True), file)
        delimiter = self._delimiter or ("\t" if file.suffix == "tsv" else ",")
        if announced := re.fullmatch(
            r'"?sep=([^"\r\n\0 ])"?\s*', first := next(text, ""), re.IGNORECASE
        ):  # written by Excel
            if self._delimiter not in (None, announced[1]):
                raise file.error(f"its first line is {first.strip()!r}, and delimiter is {self._delimiter!r}")
            delimiter = announced[1]
        else:
            text.push_back(first)
        with _allow_long_cells():
            rows = csv.reader(text, delimiter=delimiter, strict=True)
            header = self._next_row(rows, text, delimiter)
            if not header:
                if self._is_folder:
                    return  # a part without rows
                raise file.error("it is empty: its first line has to name columns")
            width = self._check_header(header, text, delimiter, is_given=bool(self._delimiter or announced), file=file)
            named = [(index, name) for index, name in enumerate(header) if name and self._reads(name)]
            unnamed = [index for index, name in enumerate(header) if not name and self._is_whole]
            while values := self._next_row(rows, text, delimiter):
                line = text.record_line
                if not width <= len(values) <= len(header):
                    yield Record(None, line, f"it has {len(values)} values for {len(header)} columns")
                elif any(values[index] for index in unnamed if index < len(values)):
                    yield Record(None, line, "it has a value in a column without a name: name the column, or use data")
                else:
                    yield Record({name: values[index] for index, name in named}, line)

    @staticmethod
    def _next_row(rows: Iterator[list[str]], text: _CsvText, delimiter: str) -> list[str]:
        """Return the next row that is not a blank line; an empty list at the end.

        :raises InvalidInput: for a quote that is not closed, or that is inside an unquoted cell: it is not known where
            such a row ends.
        """
        while True:
            text.start_record()
            try:
                values = next(rows, None)
            except csv.Error as error:
                problem = "unexpected end of data" if "unexpected end" in str(error) else str(error)
                raise text.error(problem) from None
            if values is None:
                return []
            if not values:
                continue
            if any('"' in value for value in values) and not _is_quoted_well(text.record(), delimiter):
                raise text.error("there is a quote inside an unquoted cell")
            return values

    def _check_header(self, header: list[str], text: _CsvText, delimiter: str, *, is_given: bool, file: File) -> int:
        """Return the minimum number of values in a row: columns without a name at the end may be left out.

        :raises InvalidInput: if the header cannot be that of the input.
        """
        outside = "".join(text.record().split('"')[::2])
        for other in DELIMITERS.replace(delimiter, ""):
            if not is_given and (found := outside.count(other)) and found >= outside.count(delimiter):
                raise file.error(
                    f"its first line has {found} of {other!r} and {outside.count(delimiter)} of {delimiter!r}: use"
                    f" delimiter={other!r}, or delimiter={delimiter!r} if that separates columns"
                )
        names = [name for name in header if name]
        if not names:
            raise file.error("its first line names no columns")
        if repeated := [name for name, times in Counter(names).items() if times > 1]:
            raise file.error(f"its first line has two columns named {_quote(repeated)}")
        self._check_columns(names, file)
        if self._header is None:
            self._header = header
        elif header != self._header:
            raise file.error(
                f"its first line is {_quote(header)}, and that of other files {_quote(self._header)}: write all files"
                " with the same header (in Spark: option('header', True))"
            )
        return max(index for index, name in enumerate(header) if name) + 1

    def read_parquet(self, file: File) -> Iterator[Record]:
        """Read a Parquet file.

        It holds some pages in memory (33 MiB for a file of 240 MB). A dataset's scanner would hold whole row groups
        (577 MiB).
        """
        try:
            import pyarrow
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise file.error("it is Parquet: pip install 'airflow-provider-aixplain[parquet]'") from None
        line = 0
        try:
            # Columns are read by turns, from places far apart, so each read of a block ahead (s3fs: 50 MiB) is lost.
            with file.filesystem.open(file.path, "rb", block_size=CHUNK_SIZE) as opened:
                parquet = ParquetFile(
                    opened,
                    pre_buffer=False,
                    buffer_size=2**20,
                    page_checksum_verification=True,
                    # INT96, as Spark writes it by default: in nanoseconds, years after 2262 would overflow to others.
                    coerce_int96_timestamp_unit="us",
                )
                names = parquet.schema_arrow.names
                if repeated := [name for name, times in Counter(names).items() if times > 1]:
                    raise file.error(f"it has two columns named {_quote(repeated)}")
                self._check_columns(names, file)
                used = [name for name in names if self._reads(name)]
                groups = map(parquet.metadata.row_group, range(parquet.metadata.num_row_groups))
                row_size = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=1)
                count = max(1, min(PARQUET_ROWS, PARQUET_SIZE // max(1, row_size)))
                for batch in parquet.iter_batches(batch_size=count, columns=used, use_threads=False):
                    columns = {name: batch.column(name) for name in used}
                    for index in range(batch.num_rows):
                        line += 1
                        yield _read_parquet_row(columns, index, line)
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise file.error(f"after row {line}: it is damaged, or not Parquet: {error}") from None

    def _reads(self, name: str) -> bool:
        return self._is_whole or name in self._columns

    def _check_columns(self, names: Collection[str], file: File) -> None:
        """Check that a file has the columns that are used.

        :raises InvalidInput: naming those that are not there.
        """
        self._check_partition(names, file)
        if missing := self._columns - set(names):
            raise file.error(f"it has no column {_quote(sorted(missing))}; there are {_quote(names) or 'none'}")

    def _check_partition(self, names: Collection[str], file: File) -> None:
        """Check that no column is in a file and in the names of its folders."""
        if both := self._partition.intersection(names):
            raise file.error(f"its folders and its rows have the column {_quote(both)}: rename one of them")

    def _lines(self, file: File, *, is_csv: bool = False) -> Iterator[str]:
        """Yield the lines of a text file, with their ends: line feeds, or in CSV the carriage returns of old systems.

        :raises InvalidInput: for a file that is not text of this encoding, and for a line that is too long.
        """
        number, end, length = 1, "\n", 0
        rest: list[str] = []  # the beginning of a line that the next piece continues
        pieces = self._decoded(file)
        try:
            first = next(pieces, "")
            if is_csv:
                while not _find_line_end(first) and len(first) < HEADER_LENGTH and (more := next(pieces, "")):
                    first += more
                end = _find_line_end(f"{first} ") or "\n"
            for piece in chain([first], pieces):
                if "\0" in piece:
                    number += piece[: piece.index("\0")].count(end)
                    raise file.error(
                        f"line {number}: it has a NUL character, so its encoding is not {self._encoding}: try"
                        " encoding='utf-16'"
                    )
                *lines, last = piece.split(end)
                for line in lines:
                    number += 1
                    yield "".join([*rest, line, end])
                    rest, length = [], 0
                rest.append(last)
                length += len(last)
                if length > MAX_RECORD_LENGTH:
                    raise file.error(f"line {number} is longer than {MAX_RECORD_LENGTH} characters")
        except UnicodeError as error:
            place, remedy = "", "set encoding, such as encoding='cp1252' for what Excel saves as 'CSV'"
            if isinstance(error, UnicodeDecodeError):
                number += error.object[: error.start].count(end.encode())
                place = f" (byte {error.object[error.start : error.start + 1].hex()})"
            raise file.error(f"line {number}: it is not valid {self._encoding}{place}: {remedy}") from None
        if (last := "".join(rest)) not in ("", END_OF_FILE):
            yield last

    def _decoded(self, file: File) -> Iterator[str]:
        """Yield the text of a file in pieces, without a byte order mark."""
        decoder = codecs.getincrementaldecoder(self._encoding)()
        is_start = True
        with file.filesystem.open(file.path, "rb") as opened:
            unpacked = gzip.GzipFile(fileobj=opened) if opened.read(2) == GZIP else opened
            opened.seek(0)
            self._check_start(file, unpacked.read(16))
            unpacked.seek(0)
            while chunk := unpacked.read(CHUNK_SIZE):
                if text := decoder.decode(chunk):
                    yield text.removeprefix("\ufeff") if is_start else text
                    is_start = False
            yield decoder.decode(b"", final=True)

    def _check_start(self, file: File, start: bytes) -> None:
        """Check that a file does not begin like a file of another format or encoding.

        :raises InvalidInput: if it does, naming the format or the encoding.
        """
        for signature, kind in SIGNATURES.items():
            if start.startswith(signature):
                raise file.error(f"it is {kind}")
        if re.match(rb"\s*<(!|\?xml|html)", start.removeprefix(codecs.BOM_UTF8), re.IGNORECASE):
            raise file.error("it is HTML or XML: convert it to CSV or JSON lines")
        marked = next((names for mark, names in BYTE_ORDER_MARKS.items() if start.startswith(mark)), None)
        if marked and self._encoding not in marked:
            raise file.error(
                f"its byte order mark is that of {marked[0]}, and encoding is {self._encoding!r}: use"
                f" encoding={marked[0]!r}"
            )


class _CsvText:
    """The lines of a CSV file, and those of the current row.

    :param lines: of the file.
    :param file: the file, for errors.
    """

    def __init__(self, lines: Iterator[str], file: File) -> None:
        self._lines = lines
        self._file = file
        self._number = 0
        self._record: list[str] = []
        self._length = 0
        self.record_line = 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._number += 1
        self._record.append(line)
        self._length += len(line)
        if self._length > MAX_RECORD_LENGTH:
            raise self.error(f"the row is longer than {MAX_RECORD_LENGTH} characters")
        return line

    def push_back(self, line: str) -> None:
        """Return a line to the reader, so that it is the next one again."""
        if line:
            self._lines = chain([line], self._lines)
            self._number -= 1

    def start_record(self) -> None:
        """Start a row at the next line."""
        self._record.clear()
        self._length = 0
        self.record_line = self._number + 1

    def record(self) -> str:
        """Return the text of the current row."""
        return "".join(self._record)

    def error(self, problem: str) -> InvalidInput:
        """Return the error for the current row."""
        return self._file.error(
            f"line {self.record_line}: {problem}. Quote cells that have quotes, delimiters or line ends in them, and"
            " double each quote inside (in Spark: option('escape', '\"'))"
        )


def _is_quoted_well(record: str, delimiter: str) -> bool:
    """Return whether quotes enclose whole cells. `csv` reads other quotes as text, and may end a row within a cell."""
    if record.count('"') % 2:
        return False
    first, *between, last = record.split('"')[::2]
    return (
        (not first or first[-1] == delimiter)
        and (not last.rstrip("\r\n") or last[0] == delimiter)
        and all(not text or text[0] == text[-1] == delimiter for text in between)
    )


def _find_line_end(text: str) -> str:
    """Return what ends the first line of a CSV file, if it is known yet: a line feed, or a carriage return alone."""
    outside = re.sub('"[^"]*(?:"|$)', '"', text)
    if not (end := re.search("[\r\n]", outside)):
        return ""
    after = outside[end.start() :].lstrip("\r")
    return "" if not after else "\n" if after[0] == "\n" else "\r"


_limit_lock = threading.Lock()
_limit_users = 0
_limit_before = 0


@contextmanager
def _allow_long_cells() -> Iterator[None]:
    """Let `csv` read cells of any length that a row may have.

    The limit of `csv` is global: the first reader raises it, and the last one restores it, unless other code has set it
    since.
    """
    global _limit_users, _limit_before
    with _limit_lock:
        if not _limit_users:
            _limit_before = csv.field_size_limit()
            csv.field_size_limit(max(_limit_before, MAX_RECORD_LENGTH))
        _limit_users += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_users -= 1
            if not _limit_users and csv.field_size_limit() == max(_limit_before, MAX_RECORD_LENGTH):
                csv.field_size_limit(_limit_before)


def _read_parquet_row(columns: Mapping[str, Any], index: int, line: int) -> Record:
    """Return a row, or why Python cannot represent its values, such as text that is not UTF-8, or the year 10000."""
    row = {}
    for name, column in columns.items():
        try:
            row[name] = column[index].as_py()
        except (ValueError, OverflowError, TypeError, NotImplementedError, LookupError) as error:
            return Record(None, line, f"column {name!r} of type {column.type} cannot be read: {to_printable(error)}")
    return Record(row, line)


def _find_files(folder: File) -> Iterator[File]:
    """Yield the files below a folder, by their paths, without Spark's and Hadoop's hidden files and markers.

    :raises InvalidInput: if it is a table whose log decides which files hold current rows.
    """
    found = []
    for parent, folders, files in folder.filesystem.walk(folder.path, on_error="raise"):
        for name, kind in TABLES.items():
            if name in folders and (name != "metadata" or "data" in folders):
                raise folder.error(
                    f"it is {kind} table, whose files hold old rows too: read it with its own reader, and write its"
                    " rows to Parquet"
                )
        found += [f"{parent.rstrip('/')}/{name}" for name in files if name]
    for path in sorted(found):
        if is_read_with(folder.path, path):
            yield File(folder.filesystem, path, f"{folder.uri.rstrip('/')}{path[len(folder.path) :]}")


def is_read_with(folder: str, path: str) -> bool:
    """Return whether a path is below a folder that is an input, and not hidden there."""
    return path.startswith(f"{folder}/") and not re.search(r"/[_.]", path[len(folder) :])


def _read_partition(name: str) -> Iterator[tuple[str, str | None]]:
    """Yield the columns that the folders in a path define, as in ``day=2026-01-01/part-0.parquet``."""
    for folder in name.split("/")[:-1]:
        column, is_named, value = folder.partition("=")
        if is_named:
            yield unquote(column), None if value == NO_PARTITION else unquote(value)


def _quote(names: Collection[str]) -> str:
    return join_names([repr(name) for name in names], MAX_NAMES)


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object with these members, whose names must differ: JSON does not define which value counts.

    :raises ValueError: if a name is repeated.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        raise ValueError(f"an object has two members named {_quote(repeated)}")
    return found


def parse_json(text: str) -> Any:
    """Return the JSON value of a text.

    :raises ValueError: if it is not JSON; or if its value would change: repeated names, NaN, numbers that overflow.
    :raises RecursionError: if it nests too deeply.
    """
    return _decoder.decode(text)


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_constant=parse_finite_float, parse_float=parse_finite_float
)
