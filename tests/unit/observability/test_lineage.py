"""The lineage of runs and batches: the figures of the facet, and the names of the datasets."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_aixplain.compat import ObjectStoragePath
from airflow_provider_aixplain.files import Upload
from airflow_provider_aixplain.observability.lineage import files_of_batch, lineage_of, uploaded_files
from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator, AixplainRunModelOperator
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from tests.support.deployment import AIRFLOW_3

RESPONSE = ModelResponse(ResponseStatus.SUCCESS, completed=True, used_credits=0.25, run_time=1.5).to_dict()
MANIFEST = {"path": "file:///out/results.jsonl", "rows": 3, "succeeded": 2, "failed": 1, "credits": 0.5, "run_time": 4}


def dataset_of(path: Any) -> tuple[str, str]:
    (dataset,) = lineage_of(Asset("model", "m"), RESPONSE, [path]).inputs
    return dataset.namespace, dataset.name


@pytest.mark.parametrize(
    ("uri", "namespace", "name"),
    [
        ("file:///data/in.csv", "file", "/data/in.csv"),
        ("s3://aws_default@bucket/folder/in.csv", "s3://bucket", "folder/in.csv"),
        ("s3a://bucket/folder/", "s3://bucket", "folder"),
        ("s3://bucket", "s3://bucket", "/"),
        ("gs://bucket/in.csv", "gs://bucket", "in.csv"),
        ("gcs://google@bucket/in.csv", "gs://bucket", "in.csv"),
        ("sftp://host/data/in.csv", "sftp://host", "data/in.csv"),
    ],
)
def test_datasets_are_named_as_openlineage_specifies(uri: str, namespace: str, name: str) -> None:
    assert dataset_of(uri) == (namespace, name)


@pytest.mark.parametrize("uri", ["file:///data/in.csv", "s3://aws_default@bucket/folder/in.csv"])
def test_a_path_is_the_same_dataset_as_its_uri(uri: str) -> None:
    assert dataset_of(ObjectStoragePath(uri)) == dataset_of(uri)


def test_a_dataset_has_no_password_and_no_signature() -> None:
    assert dataset_of("https://me:secret@example.com/in.csv?sig=secret") == ("https://example.com", "in.csv?***")


def test_a_dataset_in_azure_names_the_account() -> None:
    attach = importlib.import_module("airflow.sdk.io" if AIRFLOW_3 else "airflow.io.store").attach
    attach("abfss", conn_id="azure", fs=SimpleNamespace(account_name="account"))
    expected = ("abfss://box@account.dfs.core.windows.net", "folder/in.csv")
    assert dataset_of("abfss://azure@box/folder/in.csv") == expected


def test_the_facet_of_a_batch_has_its_sums() -> None:
    found = lineage_of(Asset("agent", "a"), MANIFEST, [], MANIFEST["path"])
    facet = found.run_facets["aixplain_run"]
    assert (facet.agentId, facet.modelId, facet.usedCredits, facet.runTime) == ("a", None, 0.5, 4)
    assert (facet.rows, facet.succeeded, facet.failed) == (3, 2, 1)
    assert [dataset.name for dataset in found.outputs] == ["/out/results.jsonl"]


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("file:///data/in.csv", 1),
        (ObjectStoragePath("file:///data/in.csv"), 1),
        ('["file:///data/in.csv"]', 0),
        (["file:///data/in.csv"], 0),
        (iter("ab"), 0),
        ("the result of the function", 0),
    ],
)
def test_only_files_and_folders_are_datasets(source: Any, count: int) -> None:
    assert len(list(files_of_batch(source))) == count


def test_uploads_are_found_anywhere_in_the_input() -> None:
    paths = [ObjectStoragePath("file:///b"), "file:///a"]
    value = {"text": [Upload(paths[0]), "file:///c"], "more": {"deep": Upload(paths[1])}, "odd": object()}
    assert list(uploaded_files(value)) == paths


@pytest.mark.parametrize(
    "task",
    [
        AixplainRunModelOperator(task_id="run", model_id="m", data={"text": Upload("no URI"), "odd": float("nan")}),
        AixplainRunAgentOperator(task_id="ask", agent_id="a", query=object(), artifacts_path="nowhere"),  # type: ignore[arg-type]
        AixplainBatchRunOperator(task_id="batch", model_id="m", input="nothing://here", result_path="nowhere"),
    ],
    ids=lambda task: task.task_id,
)
def test_a_task_that_fails_before_its_run_has_no_lineage(task: Any) -> None:
    found = task.get_openlineage_facets_on_failure(None)
    assert (found.inputs, found.outputs, found.run_facets) == ([], [], {})
