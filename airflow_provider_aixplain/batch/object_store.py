"""A folder of files, such as that of a batch: on a file system, or in object storage."""

from __future__ import annotations

import errno
import os
import random
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.files import to_object_path

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

NO_HARD_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Error numbers of ``link`` on file systems without hard links."""

CONFLICT_DELAYS = (0.2, 0.4, 0.8)
"""Seconds before each retry of a failed put. S3 answers 409 to concurrent puts of one object."""

PROBES = 4
"""Number of concurrent puts of the probe."""

BLOCK_SIZE = 4 * 1024 * 1024
"""Bytes per read of a streamed object. The default of s3fs is 50 MiB."""


class ObjectStore:
    """A folder in object storage, accessed through Airflow's ``ObjectStoragePath`` and, if the URI names one, a
    Connection. An object is created completely or not at all.

    :param uri: the URI of the folder.
    :param argument: the name of the argument that names it, for errors.
    :cvar pace: the minimum time between two commits, in seconds.
    :cvar is_file_system: whether files can be appended to, and reading many small ones is fast.
    """

    pace = 0.25
    is_file_system = False

    def __init__(self, uri: str, argument: str = "result_path") -> None:
        self._uri = uri.rstrip("/")
        self._argument = argument

    # Lazy, because it reads the Connection, which blocks.
    @cached_property
    def _path(self) -> ObjectStoragePath:
        return to_object_path(self._argument, self._uri)

    def _full(self, name: str) -> str:
        return f"{str(self._path.path).rstrip('/')}/{name}"

    def uri(self, name: str = "") -> str:
        """Return the URI of an object, or of the folder. It is not percent-encoded: ``ObjectStoragePath`` does not
        decode it."""
        return f"{self._uri}/{name}" if name else self._uri

    def make(self, folder: str = "log") -> None:
        """Create the folder, and one in it, on a file system. Object storage has no folders."""

    def put_if_absent(self, name: str, content: bytes) -> None:
        """Create an object.

        :raises FileExistsError: if it exists, even if an earlier call has created it and only the answer was lost.
        :raises FileNotFoundError: if the folder does not exist.
        :raises OSError: for any other failure. The object may have been created, or may be created later.
        """
        for delay in (*CONFLICT_DELAYS, None):
            try:
                self._path.fs.pipe_file(self._full(name), content, mode="create")
                return
            except (FileExistsError, FileNotFoundError, PermissionError):
                raise
            except OSError:
                if delay is None:
                    raise
                time.sleep(delay * random.uniform(1, 2))

    def get_many(self, names: list[str]) -> list[bytes | None]:
        """Read several objects concurrently; None stands for an object that does not exist."""
        unbounded = [None] * len(names)
        contents = self._path.fs.cat_ranges(list(map(self._full, names)), unbounded, unbounded, on_error="return")
        for content in contents:
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise content
        return [None if isinstance(content, Exception) else content for content in contents]

    def open(self, name: str) -> Any:
        """Open an object to read bytes in a stream.

        :raises FileNotFoundError: if it does not exist.
        """
        return self._path.fs.open(self._full(name), "rb", block_size=BLOCK_SIZE)

    @contextmanager
    def writing(self, name: str, *, if_absent: bool = False) -> Iterator[IO[bytes]]:
        """Open a temporary file. At the end it becomes the object, unless an error is raised. Files that fsspec opens
        are not used, because they are uploaded even after an error.

        :param if_absent: create the object instead of replacing it.
        :raises FileExistsError: at the end, with ``if_absent``, if it exists.
        """
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            self._path.fs.put_file(file.name, self._full(name), **({"mode": "create"} if if_absent else {}))

    def remove(self, name: str) -> None:
        """Remove an object, if it exists."""
        with suppress(FileNotFoundError):
            self._path.fs.rm_file(self._full(name))

    def probe(self) -> None:
        """Check that the storage honours put-if-absent: one of several puts succeeds, and a later one is refused.

        :raises AixplainInputError: if it does not, or the file system has no hard links.
        :raises OSError: if the storage fails.
        """
        name = f"log/probe-{uuid.uuid4().hex}"

        def is_created(number: int) -> bool:
            try:
                self.put_if_absent(name, b"%d" % number)
            except FileExistsError:
                return False
            except (TypeError, NotImplementedError):  # the file system has no argument `mode`
                return True
            except OSError as error:
                if error.errno not in NO_HARD_LINKS:
                    raise
                raise AixplainInputError(
                    f"result_path: the file system of {self.uri()} has no hard links ({error}), without which two"
                    " processes could overwrite each other's results; name a folder on another one, or in object"
                    " storage"
                ) from None
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
    """A folder on a file system. Put-if-absent needs one with hard links."""

    pace = 0.1
    is_file_system = True

    def _full(self, name: str) -> str:
        return f"{self._uri.removeprefix('file://')}/{name}"

    def make(self, folder: str = "log") -> None:
        """Create the folder, and one in it."""
        Path(self._full(folder)).mkdir(parents=True, exist_ok=True)

    def put_if_absent(self, name: str, content: bytes) -> None:
        """Create a file."""
        with self.writing(name, if_absent=True) as file:
            file.write(content)

    @contextmanager
    def writing(self, name: str, *, if_absent: bool = False) -> Iterator[IO[bytes]]:
        """Open a temporary file. At the end it is renamed; or linked, which is put-if-absent, and atomic on NFS too."""
        path = Path(self._full(name))
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            (os.link if if_absent else os.replace)(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk: without this, a power failure may lose a file that was synced itself."""
    with suppress(OSError):  # not all file systems can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def store_at(uri: str, argument: str = "result_path") -> ObjectStore:
    """Return the store of the folder that a URI names.

    :param argument: the name of the argument, for errors.
    :raises AixplainInputError: if the URI names no folder.
    """
    scheme, _, rest = uri.partition("://")
    if not scheme or not rest.strip("/") or (scheme == "file" and not rest.startswith("/")):
        raise AixplainInputError(
            f"{argument} is {uri!r}: give the URI of a folder, such as s3://bucket/folder, or file:///data/out"
            " on a file system that workers and triggerers share"
        )
    if scheme == "file":
        return LocalStore(uri, argument)
    if wildcards := set(rest) & set("*?[]"):
        raise AixplainInputError(
            f"{argument} is {uri!r}: leave out {' '.join(sorted(wildcards))}, which are wildcards in object storage"
        )
    return ObjectStore(uri, argument)
