"""Files as input: an ``ObjectStoragePath`` in a run's data stands for the file that it names.

Only such an object does. A text never becomes a file, whatever it says: it may come from elsewhere, and would send any
file that the worker can read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.upload import check_size

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath


def replace_files(value: Any, link: Callable[[ObjectStoragePath], str]) -> Any:
    """Return a value with each file in it replaced.

    :param value: the input of a model, or its parameters.
    :param link: gives what stands for a file.
    """
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {key: replace_files(item, link) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [replace_files(item, link) for item in value]
    # Imported here: Airflow's object storage takes long to import, and most runs have no file.
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    return link(value) if isinstance(value, ObjectStoragePath) else value


def check_file(path: ObjectStoragePath) -> None:
    """Return if a file can be uploaded.

    :raises InvalidInput: if there is no such file, or the platform takes none of its size.
    """
    if not path.is_file():
        raise InvalidInput(f"there is no file {str(path)!r}: name one that the worker can read")
    check_size(path.name, path.stat().st_size)


@contextmanager
def opened(path: ObjectStoragePath) -> Iterator[BinaryIO]:
    """Hold a file open for reading.

    :raises InvalidInput: as :func:`check_file`.
    """
    check_file(path)
    with path.open("rb") as file:
        yield file
