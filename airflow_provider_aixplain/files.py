"""Files as input: :class:`Upload` marks a file in a run's input, which is sent as a link to the uploaded file.

Nothing else is uploaded, neither a string with a path nor an ``ObjectStoragePath``. Both can come from outside (Airflow
creates an ``ObjectStoragePath`` from the JSON of an XCom), and could name any file that the worker can read.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from airflow_provider_aixplain.compat import ResolveMixin, deserializer_modules
from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.upload import check_size
from airflow_provider_aixplain.protocol.values import NOT_JSON

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

MAX_PATH_LENGTH = 4096
"""Characters of a path that are kept in logs and errors."""


class Upload(ResolveMixin):
    """Marks a file to be uploaded as input of a run; the model or agent receives a link to it.

    Only Python code can create one. It has no serialized form: it cannot be stored in an XCom, and Airflow's
    deserializers cannot create one from JSON. The file is sent to the platform, so do not mark a path that comes from
    an untrusted source.

    Airflow renders every ``ResolveMixin`` with its :meth:`resolve`, and sets the dependencies that
    :meth:`iter_references` returns.

    :param path: the URI of the file, such as ``file:///data/first.wav`` or ``s3://aws_default@calls/first.wav``
        (templated); an ``ObjectStoragePath``; or the output of an upstream task that returns one of them.
    :raises AixplainInputError: if the path is empty, or of another type.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Upload:
        """Refuse Airflow 2's ``BaseSerialization``, which calls any class that a serialized exception names."""
        if sys._getframe(1).f_globals.get("__name__", "").startswith(deserializer_modules()):
            raise TypeError("an Upload cannot be deserialized: create it in the DAG's code")
        return super().__new__(cls)

    def __init__(self, path: str | ObjectStoragePath | ResolveMixin) -> None:
        if path is None or (isinstance(path, str) and path.strip() in ("", "None")):
            raise AixplainInputError(
                f"Upload: path is {path!r}: give the URI of a file; if the path comes from a task or a parameter, it"
                " has no value"
            )
        if not isinstance(path, (str, ResolveMixin)) and not is_object_path(path):
            raise AixplainInputError(
                f"Upload: path is a {type(path).__name__}: give a URI, such as file:///data/first.wav, or an"
                " ObjectStoragePath"
            )
        self.path = path

    def iter_references(self) -> Iterable[tuple[Any, str]]:
        """Return the tasks that the path comes from, with the keys of their XComs."""
        return self.path.iter_references() if isinstance(self.path, ResolveMixin) else ()

    def resolve(self, context: Mapping[str, Any], **_: Any) -> Upload:
        """Return a copy with the rendered path.

        Mapped tasks of one process share the object that the DAG's code created, so it must not change.

        :param context: the task's context.
        :raises AixplainInputError: if the rendered path is empty, ``None``, or of another type.
        """
        return type(self)(context["task"].render_template(self.path, context))

    @property
    def file(self) -> ObjectStoragePath:
        """The file to upload.

        :raises InvalidInput: if the path has not been rendered, or is not a URI.
        :raises AixplainInputError: if Airflow has no filesystem for it.
        """
        if isinstance(self.path, ResolveMixin):
            raise InvalidInput(
                f"{self!r} was not rendered: Airflow renders plain dicts, lists and tuples of a templated field only"
            )
        if not isinstance(self.path, str):
            return self.path
        if "://" not in self.path:
            raise InvalidInput(f"{self!r}: path is not a URI: give one, such as file:///data/first.wav")
        return to_object_path("path of Upload", self.path)

    @property
    def name(self) -> str:
        """The name of the file, without its folder."""
        return self.file.name

    def __repr__(self) -> str:
        """Return the same text in every process: Airflow stores it in serialized DAGs and rendered templates."""
        if not isinstance(self.path, ResolveMixin):
            return f"Upload({to_printable_path(self.path)!r})"
        references = ", ".join(f"{operator.task_id}[{key!r}]" for operator, key in self.path.iter_references())
        return f"Upload({references or type(self.path).__name__})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Upload:
        """Return a copy: Airflow copies a task together with its arguments."""
        # A copied ObjectStoragePath loses its Connection (Airflow 2.11 to 3.3).
        return type(self)(copy.deepcopy(self.path, memo) if isinstance(self.path, ResolveMixin) else self.path)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: Airflow 2 can be configured to pickle XComs."""
        raise TypeError(
            "an Upload cannot be pickled or stored in an XCom: return the path, and wrap it in Upload in the DAG"
        )


def refuse_upload(value: Any) -> Any:
    """Refuse a file where none is uploaded; return ``NOT_JSON`` for other values. A converter for ``to_sendable``.

    :raises InvalidInput: for a file.
    """
    if isinstance(value, Upload) or hasattr(value, "read_bytes"):
        shown = value if isinstance(value, Upload) else to_printable_path(value)
        raise InvalidInput(
            f"{shown} is a file, but files are not uploaded here: upload it first with AixplainHook().upload_file, and"
            " give the link"
        )
    return NOT_JSON


def is_object_path(value: Any) -> bool:
    """Return whether a value is an ``ObjectStoragePath``."""
    # Imported late: Airflow's object storage takes long to import, and most runs have no file.
    from airflow_provider_aixplain.compat import ObjectStoragePath

    return isinstance(value, ObjectStoragePath)


def to_object_path(name: str, uri: str) -> ObjectStoragePath:
    """Return the path of a URI.

    :param name: the name of the argument, for the error.
    :raises AixplainInputError: if Airflow has no filesystem for it.
    """
    from airflow_provider_aixplain.compat import ObjectStoragePath

    try:
        path = ObjectStoragePath(uri)
        _ = path.fs
    except (ValueError, ImportError) as error:
        scheme = uri.partition("://")[0]
        raise AixplainInputError(
            f"{name} is {to_printable_path(uri)!r}, but Airflow has no filesystem for {scheme}://: install the"
            " provider for it on workers and triggerers, such as apache-airflow-providers-amazon[s3fs] for s3://"
            f" ({error})"
        ) from None
    return path


def to_printable_path(path: str | ObjectStoragePath) -> str:
    """Return a path as a string for logs and errors: without a password, and without the query of a presigned URL.

    Unlike :func:`~airflow_provider_aixplain.client.account.hide_userinfo`, this keeps the name before ``@``, which is
    the id of a Connection in the URI of an ``ObjectStoragePath``, and any ``@`` in a file name.
    """
    text = re.sub(r"^([\w+.-]+://[^/?#]*?:)[^/?#]*@", r"\1***@", str(path)[:MAX_PATH_LENGTH])
    return re.sub(r"^(https?://[^?#]*)[?#].*", r"\1?***", text, flags=re.DOTALL)


def read_upload_size(path: ObjectStoragePath) -> int:
    """Return the size of a file, in bytes.

    :raises InvalidInput: if the file does not exist, or exceeds the platform's size limit.
    """
    if not path.is_file():
        raise InvalidInput(f"the file {to_printable_path(path)!r} does not exist: give one that the worker can read")
    size = int(path.stat().st_size)
    check_size(path.name, size)
    return size


@contextmanager
def open_upload(path: ObjectStoragePath) -> Iterator[BinaryIO]:
    """Open a file for an upload.

    :raises InvalidInput: as :func:`read_upload_size`; and on exit, if the file's size has changed.
    """
    size = read_upload_size(path)
    with path.open("rb") as file:
        yield file
    if path.stat().st_size != size:
        raise InvalidInput(
            f"the file {to_printable_path(path)!r} changed during the upload: try again when it is complete"
        )
