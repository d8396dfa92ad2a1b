"""Files as input: an ``ObjectStoragePath`` in a run's data stands for the file that it names.

Only such an object does. A text never becomes a file, whatever it says: it may come from elsewhere, and would send any
file that the worker can read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.upload import check_size

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath


def is_file(value: Any) -> bool:
    """Whether a value that JSON cannot hold stands for a file."""
    # Imported here: Airflow's object storage takes long to import, and most runs have no file.
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    return isinstance(value, ObjectStoragePath)


def size_of(path: ObjectStoragePath) -> int:
    """Return the size, in bytes, of a file that can be uploaded.

    :raises InvalidInput: if there is no such file, or the platform takes none of its size.
    """
    if not path.is_file():
        raise InvalidInput(f"there is no file {str(path)!r}: name one that the worker can read")
    size = int(path.stat().st_size)
    check_size(path.name, size)
    return size


@contextmanager
def opened(path: ObjectStoragePath) -> Iterator[BinaryIO]:
    """Hold a file open for reading.

    :raises InvalidInput: as :func:`size_of`; and in the end, if its size has changed meanwhile.
    """
    size = size_of(path)
    with path.open("rb") as file:
        yield file
    if path.stat().st_size != size:
        raise InvalidInput(f"the file {str(path)!r} was written to while it was uploaded: try again when it is whole")
