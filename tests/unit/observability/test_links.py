"""Where the links of a task lead."""

from __future__ import annotations

import importlib
import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_aixplain.get_provider_info import get_provider_info
from airflow_provider_aixplain.observability.links import ASSET_LINK, BATCH_LINKS
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from tests.support.deployment import AIRFLOW_3, Emulator

CONTEXT: Any = {}
KEY: Any = None


RESULTS, MANIFEST = BATCH_LINKS
PAGE = (
    "http://localhost:8080/dags/a%20dag/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00/tasks/batch/xcom"
    if AIRFLOW_3
    else "http://localhost:8080/dags/a%20dag/grid?dag_run_id=manual__2026-01-01T00%3A00%3A00%2B00%3A00&task_id=batch&tab=xcom"
)


def batch(result_path: str) -> Any:
    return AixplainBatchRunOperator(task_id="batch", model_id="m", input=["a"], result_path=result_path)


def key(map_index: int | None = -1) -> Any:
    return SimpleNamespace(
        dag_id="a dag", run_id="manual__2026-01-01T00:00:00+00:00", task_id="batch", map_index=map_index
    )


@pytest.fixture
def base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of Airflow's UI."""
    section = "API" if AIRFLOW_3 else "WEBSERVER"
    monkeypatch.setenv(f"AIRFLOW__{section}__BASE_URL", "http://localhost:8080/")


def task(**arguments: Any) -> AixplainRunModelOperator:
    return AixplainRunModelOperator(**{"task_id": "run", "model_id": "a/b c", "data": "a", **arguments})


def test_the_link_is_set_before_a_refused_submission(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {**json.loads(emulator.connection), "extra": {}}
    monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", json.dumps(fields))
    one = task()
    with pytest.raises(Exception, match="no model a/b c"):
        one.execute(CONTEXT)
    page = ASSET_LINK.get_link(one, ti_key=KEY)  # type: ignore[arg-type]
    assert page == "https://platform.aixplain.com/discover/model/a%2Fb%20c"


def test_no_link_leads_to_a_poll_url() -> None:
    """A browser sends no key, so the platform would refuse it."""
    assert [link.name for link in task().operator_extra_links] == ["aiXplain page"]
    assert [link.name for link in batch("file:///out").operator_extra_links] == ["Results", "Manifest"]
    registered = {f"{type(link).__module__}.{type(link).__name__}" for link in (ASSET_LINK, *BATCH_LINKS)}
    assert set(get_provider_info()["extra-links"]) == registered


@pytest.mark.usefixtures("connection")
def test_a_resumed_task_leaves_the_link_unchanged(emulator: Emulator) -> None:
    event = {"status": "success", "message": "", "poll_url": f"{emulator.url}/api/v1/data/1"}
    response = task(model_id="echo", deferrable=False).execute(CONTEXT)
    resumed, started = task(), task()
    kwargs = {"event": {**event, "response": response}}
    resumed.resume_execution(
        "resume_from_trigger",
        {**kwargs, "settings": task().run_settings(poll_url=event["poll_url"]).to_dict()},
        CONTEXT,
    )
    started.resume_execution("resume_from_trigger", kwargs, CONTEXT)
    assert tuple(resumed.operator_extra_links) == ()
    assert tuple(started.operator_extra_links) == (ASSET_LINK,), "its trigger started it: this is the first visit"
    page = ASSET_LINK.get_link(started, ti_key=KEY)  # type: ignore[arg-type]
    assert page == f"{emulator.url}/discover/model/a%2Fb%20c"


@pytest.mark.usefixtures("connection")
@pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3 stores it itself")
def test_on_airflow_2_the_task_stores_the_link() -> None:
    pushed: dict[str, str] = {}
    instance = type("Instance", (), {"xcom_push": lambda _, key, value: pushed.update({key: value})})()
    context: Any = {"ti": instance}
    task(model_id="echo", wait_for_completion=False).execute(context)
    assert pushed[ASSET_LINK.xcom_key].endswith("/discover/model/echo")


@pytest.mark.usefixtures("base_url")
class TestLinksOfABatch:
    @pytest.mark.parametrize("map_index", [-1, None])
    def test_the_manifest_is_on_the_page_of_the_xcoms(self, map_index: int | None) -> None:
        assert MANIFEST.get_link(batch("file:///out"), ti_key=key(map_index)) == PAGE

    def test_a_mapped_task_has_a_page_of_its_own(self) -> None:
        page = MANIFEST.get_link(batch("file:///out"), ti_key=key(3))
        assert page == (PAGE.replace("/xcom", "/mapped/3/xcom") if AIRFLOW_3 else f"{PAGE}&map_index=3")

    @pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 computes it in the web server")
    @pytest.mark.parametrize(
        ("endpoint", "result_path", "page"),
        [
            (
                "",
                "gs://google@bucket/a folder/out/",
                "https://console.cloud.google.com/storage/browser/bucket/a%20folder/out",
            ),
            (
                "https://s3.eu-west-1.amazonaws.com",
                "s3://one@bucket/a folder/out",
                "https://console.aws.amazon.com/s3/buckets/bucket?prefix=a%20folder/out/",
            ),
            ("https://minio.example.com", "s3://two@bucket/out", PAGE),
            ("", "file:///out", PAGE),
            ("", "unknown://out", PAGE),
            ("", "abfss://azure@box/out", PAGE),
        ],
    )
    def test_the_results_are_in_the_console_of_their_storage(self, endpoint: str, result_path: str, page: str) -> None:
        if endpoint:
            client = SimpleNamespace(meta=SimpleNamespace(endpoint_url=endpoint))
            attach = importlib.import_module("airflow.sdk.io").attach
            attach("s3", conn_id=result_path[5:8], fs=SimpleNamespace(s3=client))
        assert RESULTS.get_link(batch(result_path), ti_key=key()) == page

    @pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3 computes it on the worker")
    def test_on_airflow_2_the_results_lead_to_the_manifest(self) -> None:
        assert RESULTS.get_link(batch("gs://bucket/out"), ti_key=key()) == PAGE
