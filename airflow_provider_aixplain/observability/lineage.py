"""The OpenLineage events of a task: its model or agent, cost and duration, and the files that it reads and writes.

It is imported only if Airflow's openlineage provider is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import Dataset
from openlineage.client.facet_v2 import RunFacet
from openlineage.client.naming import dataset as naming

from airflow_provider_aixplain import __version__
from airflow_provider_aixplain.compat import ObjectStoragePath
from airflow_provider_aixplain.files import Upload, is_object_path, to_printable_path
from airflow_provider_aixplain.observability.outlets import describe
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.usage import TOKENS
from airflow_provider_aixplain.protocol.values import parse_number, to_sendable


@attrs.define
class AixplainRunFacet(RunFacet):
    """A run on aiXplain, or all runs of a batch. Unknown values are None.

    :param modelId: the model's id on the platform.
    :param agentId: the agent's id on the platform.
    :param pollUrl: the poll URL of the run.
    :param status: the status that the platform reported.
    :param usedCredits: the cost, in credits.
    :param runTime: the duration of the run, in seconds.
    :param promptTokens: tokens read.
    :param completionTokens: tokens written.
    :param rows: the rows of a batch.
    :param succeeded: its rows that succeeded.
    :param failed: its rows that failed.
    """

    modelId: str | None = None
    agentId: str | None = None
    pollUrl: str | None = None
    status: str | None = None
    usedCredits: float | None = None
    runTime: float | None = None
    promptTokens: float | None = None
    completionTokens: float | None = None
    rows: int | None = None
    succeeded: int | None = None
    failed: int | None = None

    @staticmethod
    def _get_schema() -> str:
        return f"https://pypi.org/project/airflow-provider-aixplain/{__version__}/#AixplainRunFacet"


def lineage_of(
    asset: Asset, result: Mapping[str, Any] | None, inputs: Iterable[Any] = (), output: Any = None
) -> OperatorLineage[Any, Any]:
    """Return the lineage of a task; empty until it has a result.

    :param asset: what was run.
    :param result: the ModelResponse as a dict, or the manifest of a batch; or None.
    :param inputs: the files and folders that were read: URIs or ``ObjectStoragePath``.
    :param output: the file or folder that was written, if any.
    """
    if result is None:
        return OperatorLineage()
    usage: Any = result.get("usage")
    tokens, figures = usage if isinstance(usage, dict) else {}, describe(asset, result)
    facet = AixplainRunFacet(
        modelId=figures.get("model_id") or None,
        agentId=figures.get("agent_id") or None,
        pollUrl=result.get("url"),
        status=result.get("status"),
        usedCredits=figures["credits"],
        runTime=figures["run_time"],
        promptTokens=parse_number(tokens.get(TOKENS["prompt"])),
        completionTokens=parse_number(tokens.get(TOKENS["completion"])),
        rows=figures.get("rows"),
        succeeded=figures.get("succeeded"),
        failed=figures.get("failed"),
    )
    return OperatorLineage(
        inputs=[_dataset(path) for path in inputs],
        outputs=[] if output is None else [_dataset(output)],
        run_facets={"aixplain_run": facet},
    )


def files_of_batch(value: Any) -> Iterator[Any]:
    """Yield the file or folder that a batch's input names; none if the input is a list or an iterator."""
    is_uri = isinstance(value, str) and "://" in value and not value.lstrip().startswith("[")
    if is_uri or is_object_path(value):
        yield value


def uploaded_files(value: Any) -> Iterator[Any]:
    """Yield the paths of the files that a run's input uploads.

    :param value: the input, which has been sent.
    """
    paths: list[Any] = []

    def collect(part: Any) -> None:
        if isinstance(part, Upload):
            paths.append(part.path)

    to_sendable(value, "the input", collect)
    yield from paths


def _dataset(path: Any) -> Dataset:
    """Return the dataset of a file or folder, named by OpenLineage's rules."""
    scheme, _, rest = to_printable_path(path).partition("://")
    authority, _, key = rest.rstrip("/").partition("/")
    bucket, key = authority.rpartition("@")[2], key or "/"  # without the Connection
    named: naming.DatasetNaming
    match scheme:
        case "file":
            named = naming.LocalFileSystem(f"/{key}")
        case "s3" | "s3a":
            named = naming.S3(bucket, key)
        case "gs" | "gcs":
            named = naming.GCS(bucket, key)
        case "abfs" | "abfss" | "adl":
            named = naming.ABFSS(bucket, ObjectStoragePath(str(path)).fs.account_name, key)
        case _:
            return Dataset(f"{scheme}://{bucket}", key)
    return Dataset(named.get_namespace(), named.get_name())
