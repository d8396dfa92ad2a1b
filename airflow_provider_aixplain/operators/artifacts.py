"""Stores the artifacts of an agent's run in a folder: their links expire."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from airflow_provider_aixplain.batch.object_store import ObjectStore, store_at
from airflow_provider_aixplain.client.blocking import MAX_TRANSFER_TIMEOUT
from airflow_provider_aixplain.exceptions import AixplainError
from airflow_provider_aixplain.files import to_object_path
from airflow_provider_aixplain.protocol.artifacts import (
    MAX_ARTIFACTS,
    check_content,
    file_name,
    find_source,
    folder_name,
    stored_artifact,
)
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.values import to_printable
from airflow_provider_aixplain.protocol.wire import AnswerTooLarge

if TYPE_CHECKING:
    from airflow_provider_aixplain.client.blocking import Client

RETRY_DELAYS = (1.0, 5.0, 25.0)
"""Seconds before each retry of what fails temporarily. All artifacts of a run share them, as waits hold a worker."""

_PERMANENT = (AnswerTooLarge, PermissionError, FileNotFoundError)


def open_folder(uri: Any) -> ObjectStore:
    """Return the store of ``artifacts_path``.

    :raises AixplainInputError: if it is no URI of a folder, or Airflow has no filesystem for it.
    """
    store = store_at(str(uri), "artifacts_path")
    to_object_path("artifacts_path", str(uri))
    return store


def store_artifacts(
    hook: Client, uri: Any, event: Mapping[str, Any], name: str, log: Any, delays: tuple[float, ...] = RETRY_DELAYS
) -> dict[str, Any]:
    """Store the artifacts of an agent's run, and return its event with their paths instead of links and content.

    Nothing is raised. The run is paid for, and a later try could lose its result or pay again. An artifact that cannot
    be stored is passed on unchanged, and a warning states why.

    :param hook: of the account that ran the agent.
    :param uri: the URI of the folder. Each run has a folder of its own in it, so a later try replaces its own files.
    :param event: the payload of the trigger's event; the run has succeeded.
    :param name: a prefix for log lines.
    :param log: the task's logger.
    :param delays: seconds before each retry of what fails temporarily.
    """
    response = event["response"]
    result = Asset("agent").result(response)
    artifacts = list(result["artifacts"])
    folder = folder_name(str(result["request_id"] or event["poll_url"] or response))
    deadline, pauses = time.monotonic() + MAX_TRANSFER_TIMEOUT, iter(delays)
    open_once = cache(partial(open_folder, uri))  # it reads the Connection; an error counts for each artifact
    for index, artifact in enumerate(artifacts[:MAX_ARTIFACTS]):
        file = file_name(index + 1, artifact)
        try:
            store = partial(_store, hook, open_once, folder, file, artifact, deadline)
            artifacts[index] = stored_artifact(artifact, _retry(store, pauses))
            log.info("%s: stored an artifact: %s", name, artifacts[index]["path"])
        except Exception as error:
            log.warning("%s: the artifact %s is passed on unchanged: %s", name, file, to_printable(error))
    if len(artifacts) > MAX_ARTIFACTS:
        message = "%s: %d artifacts are passed on unchanged: at most %d of a run are stored"
        log.warning(message, name, len(artifacts) - MAX_ARTIFACTS, MAX_ARTIFACTS)
    if not artifacts:
        return dict(event)
    return {**event, "response": {**response, "data": {**response["data"], "artifacts": artifacts}}}


def _store(
    hook: Client, open_once: Callable[[], ObjectStore], folder: str, file: str, artifact: Any, deadline: float
) -> str:
    """Store an artifact, completely or not at all, and return the URI of its file."""
    url, content = find_source(artifact, hook.platform.max_answer)
    pieces = [content] if url is None else hook.iter_download(url, deadline - time.monotonic())
    store, path = open_once(), f"{folder}/{file}"
    store.make(folder)
    size, digest = 0, hashlib.sha256()
    with store.writing(path) as target:
        for piece in pieces:
            size += len(piece)
            digest.update(piece)
            target.write(piece)
        check_content(artifact, size, digest.hexdigest())
    return store.uri(path)


def _retry(call: Callable[[], str], pauses: Iterator[float]) -> str:
    """Return the result of a call. While it fails temporarily, retry it after each of the pauses that are left."""
    while True:
        try:
            return call()
        except (AixplainError, OSError) as error:
            is_temporary = error.retryable if isinstance(error, AixplainError) else not isinstance(error, _PERMANENT)
            pause = next(pauses, None) if is_temporary else None
            if pause is None:
                raise
        time.sleep(pause)
