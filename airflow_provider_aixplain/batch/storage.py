"""Where a batch keeps its files: in a folder on a file system, or in an object storage."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_aixplain.batch.journal import FileJournal, Journal, ObjectJournal
from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.files import object_path

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

READ_AT_A_TIME = 64
"""How many objects are read at once."""

NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""What a file system says that has no hard links."""

LOCKED_FOR = 10.0
"""Seconds for which another process may hold the lock of a folder."""


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
    def open(self, name: str) -> Any:
        """Open a file, to read bytes in a stream."""

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file, to write bytes in a stream: it is there in the end, all at once, if nothing is raised."""

    @abstractmethod
    def content(self, name: str) -> bytes | None:
        """Return what a file holds; None if there is none."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> None:
        """Write a file, all at once, that nobody else has written.

        :raises FileExistsError: if somebody has.
        """

    @abstractmethod
    def remove(self, names: Iterable[str]) -> None:
        """Remove files that may be there. In an object storage they may stay there."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep others from writing, where that can be: with objects nothing depends on it."""
        return nullcontext()


class FileStorage(Storage):
    """A folder on a file system.

    :param folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread = threading.RLock()
        self._is_locked = False

    def uri(self, name: str = "") -> str:
        # Not percent-encoded: Airflow's ObjectStoragePath takes it as it is.
        return f"file://{self.folder / name}"

    def make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def journal(self, name: str) -> FileJournal:
        return FileJournal(self, name)

    def open(self, name: str) -> Any:
        return (self.folder / name).open("rb")

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        with self._new(name) as new:
            with new.open("xb") as file:
                yield file
            os.replace(new, self.folder / name)

    @contextmanager
    def _new(self, name: str) -> Iterator[Path]:
        """Return where nobody else writes meanwhile, and leave nothing there."""
        new = self.folder / f"{name}.{uuid.uuid4().hex}"
        try:
            yield new
        finally:
            new.unlink(missing_ok=True)

    def content(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def create(self, name: str, content: bytes) -> None:
        path = self.folder / name
        with self.lock(), self._new(name) as new:
            new.write_bytes(content)
            try:
                os.link(new, path)  # the server is asked: NFS may show a folder as it was half a minute ago
            except FileExistsError:
                if not os.path.samestat(new.stat(), path.stat()):  # or else the answer was lost, and it was asked again
                    raise
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                if path.exists():
                    raise FileExistsError(path) from None
                os.replace(new, path)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others from writing, on other hosts too. The operating system gives it back when a process dies.

        :raises TimeoutError: if somebody else holds it for long.
        :raises AixplainInputError: if the file system has no locks.
        """
        with self._thread:
            if self._is_locked:
                yield
                return
            with (self.folder / "lock").open("ab") as file:
                self._wait_for(file.fileno())
                self._is_locked = True
                try:
                    yield
                finally:
                    self._is_locked = False

    def _wait_for(self, descriptor: int) -> None:
        deadline = time.monotonic() + LOCKED_FOR
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{self.folder}: another process holds its lock, and stands still") from None
                time.sleep(0.001)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                raise AixplainInputError(
                    f"result_path: the file system of {self.folder} has no locks ({error}), without which processes"
                    " overwrite each other's results; name a folder on another one, or in an object storage"
                ) from None


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
        if not lists_at_once(self._path.fs):
            raise AixplainInputError(
                f"result_path is {self._uri!r}: its filesystem lists folder by folder, and leaves out what it cannot"
                " list, so that a batch would take for new what is paid for; use s3://, gs://, abfs:// or file://"
            )
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

    def open(self, name: str) -> Any:
        return self._fs.open(self._full(name), "rb")

    @contextmanager
    def writing(self, name: str, *, is_new: bool = False) -> Iterator[IO[bytes]]:
        """Open a file, to write bytes in a stream: it is there in the end, all at once, if nothing is raised.

        What fsspec opens to be written is written to its end whatever is raised, and so would hold a part then.

        :param is_new: whether nobody else may have written it.
        :raises FileExistsError: if somebody has.
        """
        with tempfile.NamedTemporaryFile() as whole:
            yield whole
            whole.flush()
            self._fs.put_file(whole.name, self._full(name), **({"mode": "create"} if is_new else {}))

    def content(self, name: str) -> bytes | None:
        try:
            found: bytes = self._fs.cat_file(self._full(name))
        except FileNotFoundError:
            return None
        return found

    def replace(self, name: str, content: bytes) -> None:
        """Write a file, all at once."""
        self._fs.pipe_file(self._full(name), content)

    def create(self, name: str, content: bytes) -> None:
        try:
            self._fs.pipe_file(self._full(name), content, mode="create")
        except FileExistsError:
            if self.content(name) != content:  # or else its answer was lost, and it was asked again
                raise

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

    def contents(self, names: list[str]) -> Iterator[bytes | None]:
        """Read files, several at a time; None is for one that is gone."""
        for start in range(0, len(names), READ_AT_A_TIME):
            some = [self._full(name) for name in names[start : start + READ_AT_A_TIME]]
            contents = self._fs.cat(some, on_error="return")
            for path in some:
                found = contents[path]
                if isinstance(found, Exception) and not isinstance(found, FileNotFoundError):
                    raise found
                yield None if isinstance(found, FileNotFoundError) else found

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


def lists_at_once(filesystem: Any) -> bool:
    """Return whether a filesystem lists all below a folder at once.

    What fsspec has for those that do not leaves out a folder that it cannot list, and says nothing.
    """
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
    from fsspec.asyn import AsyncFileSystem  # type: ignore[import-untyped]

    kind = type(filesystem)
    if kind.async_impl:
        return kind._find is not AsyncFileSystem._find
    return kind.find is not AbstractFileSystem.find
