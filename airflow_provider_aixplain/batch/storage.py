"""Where a batch keeps its files: in a folder on a file system, or in an object storage."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.batch.journal import FileJournal, Journal, ObjectJournal
from airflow_provider_aixplain.exceptions import AixplainInputError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

READ_AT_A_TIME = 64
"""How many objects are read at once."""


class Storage(ABC):
    """A folder for the files of one batch."""

    @abstractmethod
    def uri(self, name: str = "") -> str:
        """Return the URI of a file, or of the folder."""

    @abstractmethod
    def make(self) -> None:
        """Make the folder."""

    @abstractmethod
    def journal(self, name: str) -> Journal:
        """Return a journal; what is read of it as a whole is in ``NAME.jsonl``."""

    @abstractmethod
    def open(self, name: str, mode: str) -> Any:
        """Open a file, to read or write bytes in a stream."""

    @abstractmethod
    def content(self, name: str) -> bytes | None:
        """Return what a file holds; None if there is none."""

    @abstractmethod
    def replace(self, name: str, content: bytes) -> None:
        """Write a file, all at once."""

    @abstractmethod
    def remove(self, names: Iterable[str]) -> None:
        """Remove files that may be there."""


class FileStorage(Storage):
    """A folder on a file system.

    :param folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def uri(self, name: str = "") -> str:
        # Not percent-encoded: Airflow's ObjectStoragePath takes it as it is.
        return f"file://{self.folder / name}"

    def make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def journal(self, name: str) -> FileJournal:
        return FileJournal(self.folder / f"{name}.jsonl")

    def open(self, name: str, mode: str) -> Any:
        return (self.folder / name).open(mode)

    def content(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def replace(self, name: str, content: bytes) -> None:
        new = self.folder / f"{name}.new"
        new.write_bytes(content)
        os.replace(new, self.folder / name)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


class ObjectStorage(Storage):
    """A folder in an object storage, that Airflow reaches, by its Connection if the URI names one.

    :param uri: of the folder.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")

    # Not before they are needed: they read the Connection, which blocks.

    @cached_property
    def _path(self) -> ObjectStoragePath:
        return object_path("result_path", self._uri)

    @cached_property
    def _fs(self) -> Any:
        return self._path.fs

    @cached_property
    def _root(self) -> str:
        return str(self._path.path).rstrip("/")

    def uri(self, name: str = "") -> str:
        return f"{self._uri}/{name}" if name else self._uri

    def make(self) -> None:
        """Do nothing: folders are but names there."""

    def journal(self, name: str) -> ObjectJournal:
        return ObjectJournal(self, name)

    def open(self, name: str, mode: str) -> Any:
        return self._fs.open(self._full(name), mode)

    def content(self, name: str) -> bytes | None:
        try:
            found: bytes = self._fs.cat_file(self._full(name))
        except FileNotFoundError:
            return None
        return found

    def replace(self, name: str, content: bytes) -> None:
        self._fs.pipe_file(self._full(name), content)

    def replace_by(self, name: str, lines: Iterable[bytes]) -> None:
        """Write a file, all at once, of lines that may be more than the memory holds.

        What is opened to be written is written to its end whatever is raised meanwhile, and so holds a part then.
        """
        with tempfile.NamedTemporaryFile() as whole:
            whole.writelines(lines)
            whole.flush()
            self._fs.put_file(whole.name, self._full(name))

    def remove(self, names: Iterable[str]) -> None:
        if paths := [self._full(name) for name in names]:
            with suppress(FileNotFoundError):
                self._fs.rm(paths)

    def names(self, folder: str) -> list[str]:
        """Return the names of all files below a folder."""
        self._fs.invalidate_cache()  # others write too
        try:
            return [self._short(path) for path in self._fs.find(self._full(folder))]
        except FileNotFoundError:
            return []

    def folders(self, folder: str) -> set[str]:
        """Return the names of the folders in a folder."""
        self._fs.invalidate_cache()
        try:
            return {self._short(path).rstrip("/") for path in self._fs.ls(self._full(folder), detail=False)}
        except FileNotFoundError:
            return set()

    def contents(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        """Read files, several at a time, but those that are gone."""
        for start in range(0, len(names), READ_AT_A_TIME):
            some = {self._full(name): name for name in names[start : start + READ_AT_A_TIME]}
            for path, found in self._fs.cat(list(some), on_error="return").items():
                if isinstance(found, FileNotFoundError):
                    continue
                if isinstance(found, Exception):
                    raise found
                yield some[path], found

    def _full(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _short(self, path: str) -> str:
        return path[len(self._root) + 1 :]


def storage_at(uri: str) -> Storage:
    """Return the storage that a URI names.

    :raises AixplainInputError: if it can be none.
    """
    if uri.startswith("file:///"):
        return FileStorage(Path(uri.removeprefix("file://")))
    scheme, _, rest = uri.partition("://")
    if not scheme or scheme == "file" or not rest.strip("/"):
        raise AixplainInputError(
            f"result_path is {uri!r}: give the URI of a folder, such as s3://bucket/folder, or file:///data/out"
            " on a file system that workers and triggerers share"
        )
    if found := set(rest) & set("*?[]"):
        raise AixplainInputError(f"result_path is {uri!r}: leave out {' '.join(sorted(found))}, which stand for others")
    return ObjectStorage(uri)


def object_path(name: str, uri: str) -> ObjectStoragePath:
    """Return the path that a URI names.

    :param name: of the argument that holds it.
    :raises AixplainInputError: if Airflow cannot reach such paths.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        path = ObjectStoragePath(uri)
        _ = path.fs
    except (ValueError, ImportError) as error:
        scheme = uri.partition("://")[0]
        raise AixplainInputError(
            f"{name} is {uri!r}, and Airflow knows no filesystem for {scheme}://: install the provider that brings it"
            f" on workers and triggerers, such as apache-airflow-providers-amazon[s3fs] for s3:// ({error})"
        ) from None
    return path
