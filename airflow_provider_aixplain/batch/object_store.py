"""The folder of a batch: on a file system, or in an object storage."""

from __future__ import annotations

import errno
import os
import random
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.files import object_path

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

NO_HARD_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Error numbers of ``link`` on file systems without hard links."""

CONFLICT_DELAYS = (0.2, 0.4, 0.8)
"""Seconds before a put that failed is repeated. S3 answers 409 to concurrent puts of one object."""

PROBES = 4
"""How many puts the probe sends at the same time."""

BLOCK_SIZE = 4 * 1024 * 1024
"""Bytes of an object that are read at once. The default of s3fs is 50 MiB."""


class ObjectStore(ABC):
    """A folder of objects. An object is created completely or not at all.

    :ivar pace: the shortest time between two commits, in seconds.
    :ivar uses_segments: whether reading many small objects takes so long that they are bundled.
    """

    pace: float
    uses_segments: bool

    @abstractmethod
    def uri(self, name: str = "") -> str:
        """Return the URI of an object, or of the folder."""

    @abstractmethod
    def put_if_absent(self, name: str, content: bytes) -> None:
        """Create an object.

        :raises FileExistsError: if it exists, also if an earlier call created it whose answer was lost.
        :raises FileNotFoundError: if the folder does not exist.
        :raises OSError: for any other failure. The object may have been created, or may be created later.
        """

    @abstractmethod
    def get(self, name: str) -> bytes | None:
        """Return the content of an object; None if it does not exist."""

    def get_many(self, names: list[str]) -> list[bytes | None]:
        """Return the contents of several objects, as :meth:`get` does."""
        return [self.get(name) for name in names]

    @abstractmethod
    def open(self, name: str) -> Any:
        """Open an object to read bytes in a stream.

        :raises FileNotFoundError: if it does not exist.
        """

    @abstractmethod
    def writing(self, name: str, *, if_absent: bool = False) -> AbstractContextManager[IO[bytes]]:
        """Open a temporary file whose content becomes the object at the end, unless an error is raised.

        :param if_absent: create the object instead of replacing it.
        :raises FileExistsError: at the end, with ``if_absent``, if it exists.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an object, if it exists."""

    def make(self) -> None:
        """Create the folder, where folders exist by themselves."""
        return

    def grow(self, name: str, lines: Iterable[bytes], check: Callable[[], object]) -> IO[bytes] | None:
        """Replace a file, and return it open to append to, where that is possible.

        :param lines: its content so far.
        :param check: raises an error if it must not be replaced.
        """
        return None

    def probe(self) -> None:
        """Check that the storage honours put-if-absent: of several puts one succeeds, and later ones are refused.

        :raises AixplainInputError: if it does not.
        :raises OSError: if the storage fails.
        """
        name = f"log/probe-{uuid.uuid4().hex}"

        def is_created(number: int) -> bool:
            try:
                self.put_if_absent(name, b"%d" % number)
            except FileExistsError:
                return False
            except (TypeError, NotImplementedError):  # the file system does not know the argument `mode`
                pass
            return True

        with ThreadPoolExecutor(PROBES) as pool:
            created = sum(pool.map(is_created, range(PROBES))) + is_created(PROBES)
        with suppress(OSError):
            self.remove(name)
        if created != 1:
            raise AixplainInputError(
                f"result_path: the file system of {self.uri()} overwrites objects that exist ({created} of"
                f" {PROBES + 1} puts of one object succeeded), so two processes could overwrite each other's results."
                " Upgrade its package: s3fs, gcsfs and adlfs support put-if-absent from 2024.12.0 on"
            )


class LocalStore(ObjectStore):
    """A folder on a file system with hard links.

    :param folder: the folder.
    """

    pace = 0.1
    uses_segments = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def uri(self, name: str = "") -> str:
        """Return the URI, which is not percent-encoded: Airflow's ``ObjectStoragePath`` does not decode it."""
        return f"file://{self.folder / name}"

    def make(self) -> None:
        """Create the folder."""
        (self.folder / "log").mkdir(parents=True, exist_ok=True)

    def put_if_absent(self, name: str, content: bytes) -> None:
        """Create a file: write a temporary one and link it, which a server decides on NFS."""
        path = self.folder / name
        with self._temporary(path) as new:
            with new.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self._link(new, path)

    def _link(self, new: Path, path: Path) -> None:
        try:
            os.link(new, path)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            raise AixplainInputError(
                f"result_path: the file system of {self.folder} has no hard links ({error}), without which two"
                " processes could overwrite each other's results; name a folder on another one, or in an object storage"
            ) from None

    def get(self, name: str) -> bytes | None:
        """Return the content of a file; None if it does not exist."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def open(self, name: str) -> Any:
        """Open a file to read bytes."""
        return (self.folder / name).open("rb")

    @contextmanager
    def writing(self, name: str, *, if_absent: bool = False) -> Iterator[IO[bytes]]:
        """Open a temporary file, which is linked or renamed at the end."""
        path = self.folder / name
        with self._temporary(path) as new:
            with new.open("xb") as file:
                yield file
            if if_absent:
                self._link(new, path)
            else:
                os.replace(new, path)

    def grow(self, name: str, lines: Iterable[bytes], check: Callable[[], object]) -> IO[bytes]:
        """Replace a file, and return it open: lines of a process whose file was replaced by another one go nowhere."""
        path = self.folder / name
        with self._temporary(path) as new, ExitStack() as opened:
            file = opened.enter_context(new.open("xb"))
            file.writelines(lines)
            file.flush()
            check()
            os.replace(new, path)
            opened.pop_all()
            return file

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        (self.folder / name).unlink(missing_ok=True)

    @contextmanager
    def _temporary(self, path: Path) -> Iterator[Path]:
        new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            yield new
        finally:
            new.unlink(missing_ok=True)


class FsspecStore(ObjectStore):
    """A folder in an object storage that Airflow's ``ObjectStoragePath`` reaches, by a Connection if the URI names one.

    :param uri: of the folder.
    """

    pace = 0.25
    uses_segments = True

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")

    # Created when it is needed: it reads the Connection, which blocks.
    @cached_property
    def _path(self) -> ObjectStoragePath:
        return object_path("result_path", self._uri)

    @property
    def _fs(self) -> Any:
        return self._path.fs

    def uri(self, name: str = "") -> str:
        """Return the URI of an object, or of the folder."""
        return f"{self._uri}/{name}" if name else self._uri

    def put_if_absent(self, name: str, content: bytes) -> None:
        """Create an object; a put that failed is repeated a few times."""
        for delay in (*CONFLICT_DELAYS, None):
            try:
                self._fs.pipe_file(self._full(name), content, mode="create")
                return
            except (FileExistsError, FileNotFoundError, PermissionError):
                raise
            except OSError:
                if delay is None:
                    raise
                time.sleep(delay * random.uniform(1, 2))

    def get(self, name: str) -> bytes | None:
        """Return the content of an object; None if it does not exist."""
        try:
            found: bytes = self._fs.cat_file(self._full(name))
        except FileNotFoundError:
            return None
        return found

    def get_many(self, names: list[str]) -> list[bytes | None]:
        """Return the contents of several objects, read at the same time."""
        paths = [self._full(name) for name in names]
        found = self._fs.cat(paths, on_error="return")
        contents = [found[path] for path in paths]
        for content in contents:
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise content
        return [None if isinstance(content, Exception) else content for content in contents]

    def open(self, name: str) -> Any:
        """Open an object to read bytes."""
        return self._fs.open(self._full(name), "rb", block_size=BLOCK_SIZE)

    @contextmanager
    def writing(self, name: str, *, if_absent: bool = False) -> Iterator[IO[bytes]]:
        """Open a temporary file, which is uploaded at the end: fsspec's own files are uploaded after errors too."""
        with tempfile.NamedTemporaryFile() as whole:
            yield whole
            whole.flush()
            self._fs.put_file(whole.name, self._full(name), **({"mode": "create"} if if_absent else {}))

    def remove(self, name: str) -> None:
        """Remove an object, if it exists."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._full(name))

    def _full(self, name: str) -> str:
        return f"{str(self._path.path).rstrip('/')}/{name}"


def store_at(uri: str) -> ObjectStore:
    """Return the store of the folder that a URI names.

    :raises AixplainInputError: if it names none.
    """
    if uri.startswith("file:///"):
        return LocalStore(Path(uri.removeprefix("file://")))
    scheme, _, rest = uri.partition("://")
    if not scheme or scheme == "file" or not rest.strip("/"):
        raise AixplainInputError(
            f"result_path is {uri!r}: give the URI of a folder, such as s3://bucket/folder, or file:///data/out"
            " on a file system that workers and triggerers share"
        )
    if found := set(rest) & set("*?[]"):
        raise AixplainInputError(
            f"result_path is {uri!r}: leave out {' '.join(sorted(found))}, which are wildcards in object storages"
        )
    return FsspecStore(uri)
