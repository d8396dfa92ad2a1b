"""Artifacts of agents: what is downloaded, where it is stored, and what is passed on unchanged."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from airflow_provider_aixplain.client.account import Platform
from airflow_provider_aixplain.client.blocking import Client
from airflow_provider_aixplain.compat import ObjectStoragePath
from airflow_provider_aixplain.decorators.aixplain import AixplainAgentDecoratedOperator
from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator
from airflow_provider_aixplain.operators.artifacts import store_artifacts
from airflow_provider_aixplain.protocol.artifacts import MAX_ARTIFACTS
from airflow_provider_aixplain.protocol.response import read_response
from airflow_provider_aixplain.workerless.eligibility import reason_not_end_from_trigger
from tests.support.deployment import AIRFLOW_3, Emulator
from tests.support.scripted import Handler, Server, serve
from tests.support.task_log import NAME, TaskLog

CONTEXT: Any = {}
KEY = "k3y-that-nobody-sees"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message><StringToSign>secret</StringToSign>"


@pytest.fixture
def store() -> Iterator[Server]:
    """A store that holds ``/chart.png``, at an origin that the account trusts."""
    with serve(lambda http: http.answer(200, b"pixels")) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return f"file://{tmp_path}/out"


def link(server: Server, name: str = "chart.png", **fields: Any) -> dict[str, Any]:
    return {"name": name, "url": f"{server.url}/{name}?X-Amz-Signature=secret", "url_expires_at": "soon", **fields}


def save(
    server: Server, folder: str, *artifacts: Any, request_id: str | None = "r1", poll_url: str = "", **account: Any
) -> list[Any]:
    """Store these artifacts of a run, and return what the task's result states of them."""
    body = {"completed": True, "data": {"output": "done", "steps": [], "artifacts": list(artifacts)}}
    response = read_response({**body, "requestId": request_id}).to_dict()
    client = Client(Platform(KEY, backend_url=server.url, models_run_url=server.url, **account))
    event = {"status": "success", "message": "", "response": response, "poll_url": poll_url}
    event = store_artifacts(client, folder, event, "ask", logging.getLogger(NAME), delays=(0.0, 0.0))
    assert event["response"]["data"]["output"] == "done"
    stored: list[Any] = event["response"]["data"]["artifacts"]
    return stored


def files(tmp_path: Path) -> dict[str, str]:
    """Return the content of all files, by path."""
    found = (path for path in tmp_path.rglob("*") if path.is_file())
    return {str(path.relative_to(tmp_path)): path.read_text() for path in found}


def read(path: str) -> bytes:
    content: bytes = ObjectStoragePath(path).read_bytes()
    return content


def test_files_are_stored_and_links_replaced(store: Server, place: str) -> None:
    inline = {"name": "notes.md", "content": "é", "source": "workspace"}
    stored = save(store, place, link(store, mime_type="image/png"), inline)
    assert stored == [
        {"name": "chart.png", "mime_type": "image/png", "path": f"{place}/r1/1_chart.png"},
        {"name": "notes.md", "source": "workspace", "path": f"{place}/r1/2_notes.md"},
    ]
    assert [read(artifact["path"]) for artifact in stored] == [b"pixels", "é".encode()]
    assert save(store, place, link(store), inline)[0]["path"] == stored[0]["path"], "a later try replaces its files"


def test_a_download_carries_no_key_and_no_content_type(store: Server, folder: str) -> None:
    save(store, folder, link(store))
    assert store.asked[0].path == "/chart.png?X-Amz-Signature=secret"
    assert KEY not in str(store.asked[0])
    assert "content-type" not in store.asked[0].headers, "some links are signed for it"


def test_equal_names_and_runs_do_not_collide(store: Server, folder: str, tmp_path: Path) -> None:
    same = {"name": "a.txt", "content": "1"}
    save(store, folder, same, {**same, "content": "2"})
    save(store, folder, {**same, "content": "3"}, request_id="r2")
    save(store, folder, {**same, "content": "4"}, request_id=None, poll_url="https://a.example/1")
    save(store, folder, {**same, "content": "5"}, request_id=None, poll_url="https://a.example/2")
    save(store, folder, {**same, "content": "6"}, request_id=None)
    save(store, folder, {**same, "content": "7"}, request_id=None)
    assert sorted(files(tmp_path).values()) == list("1234567")


@pytest.mark.parametrize("name", ["../../../escaped", "/etc/passwd", "..", "a\0b", "x" * 5000, "*?[a]#%2e%2e", "~root"])
def test_hostile_names_stay_in_the_folder(store: Server, folder: str, tmp_path: Path, name: str) -> None:
    stored = save(store, folder, {"name": name, "content": "a"}, request_id=f"../{name}")
    (path,) = files(tmp_path)
    assert path.startswith("out/")
    assert len(Path(path).parts) == 3
    assert stored[0]["path"] == f"file://{tmp_path}/{path}"
    assert read(stored[0]["path"]) == b"a"


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/",
        "https://evil.example/chart.png",
        "http://bucket.s3.amazonaws.com/chart.png",
        "https://vpc-logs.us-east-1.es.amazonaws.com/_search",
        "https://s3.amazonaws.com@evil.example/",
        "https://[::1/",
        "file:///etc/passwd",
        "s3://bucket/chart.png",
        "not a link",
    ],
)
def test_hostile_links_are_passed_on_unchanged(
    store: Server, folder: str, url: str, tmp_path: Path, task_log: TaskLog
) -> None:
    artifact = {"name": "a.png", "url": url}
    assert save(store, folder, artifact, link(store))[0] == artifact
    (warning,) = task_log.lines()
    assert warning.startswith("ask: the artifact 1_a.png is passed on unchanged: An untrusted origin may not")
    assert list(files(tmp_path)) == ["out/r1/2_chart.png"], "the others are stored"


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/", "file:///etc/passwd", "https://evil.example/"])
def test_a_redirect_to_an_untrusted_host_is_not_followed(
    folder: str, target: str, tmp_path: Path, task_log: TaskLog
) -> None:
    with serve(lambda http: http.answer(302, b"elsewhere", Location=target)) as store:
        artifact = link(store)
        assert save(store, folder, artifact) == [artifact]
    assert len(store.asked) == 1
    assert "download: HTTP 302" in task_log.lines()[0]
    assert not files(tmp_path)


def test_a_redirect_to_another_store_is_followed(folder: str, certificate: Path) -> None:
    """The first store is also a proxy, so that the name of the other one needs no network."""
    target = "https://bucket.s3.amazonaws.com/chart.png"
    with (
        serve(lambda http: http.answer(200, b"pixels"), certificate) as other,
        serve(lambda http: http.answer(307, Location=target)) as first,
    ):
        first.tunnels["bucket.s3.amazonaws.com:443"] = other.url.removeprefix("https://")
        stored = save(first, folder, link(first), proxy=first.url, verify=False)
    assert read(stored[0]["path"]) == b"pixels"
    assert KEY not in f"{first.asked} {other.asked}"


def test_redirects_without_an_end_are_not_followed(folder: str) -> None:
    with serve(lambda http: http.answer(302, Location="/again")) as store:
        assert "path" not in save(store, folder, link(store))[0]
    assert len(store.asked) == 6


@pytest.mark.parametrize("is_compressed", [True, False])
def test_a_large_artifact_is_not_downloaded_completely(
    folder: str, tmp_path: Path, is_compressed: bool, task_log: TaskLog
) -> None:
    content = gzip.compress(b"x" * 1_000_000) if is_compressed else b"x" * 1_000_000
    headers = {"Content-Encoding": "gzip"} if is_compressed else {}
    with serve(lambda http: http.answer(200, content, **headers)) as store:
        artifact = link(store)
        assert save(store, folder, artifact, max_answer=100_000) == [artifact]
        assert len(store.asked) == 1, "it is not downloaded again"
        assert save(store, folder, link(store, byte_size=100_001), max_answer=100_000)[0]["url"]
        assert len(store.asked) == 1, "its stated size is known before"
    assert "exceeds the limit of 100000 bytes" in task_log.lines()[0]
    assert not files(tmp_path)


def test_a_compressed_download_is_decompressed(folder: str) -> None:
    content = b"a,b\n" * 1000
    answer = gzip.compress(content)
    with serve(lambda http: http.answer(200, answer, **{"Content-Encoding": "gzip"})) as store:
        artifact = link(store, byteSize=len(content), sha256=hashlib.sha256(content).hexdigest())
        assert read(save(store, folder, artifact)[0]["path"]) == content


@pytest.mark.parametrize("stated", [{"byte_size": 7}, {"sha256": "0" * 64}])
def test_a_file_that_differs_from_its_description_is_not_stored(
    store: Server, folder: str, tmp_path: Path, stated: dict[str, Any]
) -> None:
    artifact = link(store, **stated)
    assert save(store, folder, artifact) == [artifact]
    assert not files(tmp_path)


def test_an_expired_link_is_passed_on_without_a_retry(folder: str, task_log: TaskLog) -> None:
    with serve(lambda http: http.answer(403, DENIED)) as store:
        assert "path" not in save(store, folder, link(store))[0]
    assert len(store.asked) == 1
    assert "download: HTTP 403 (resource): AccessDenied" in str(task_log)
    assert "secret" not in str(task_log)


def cut(http: Handler) -> None:
    http.send_response(200)
    http.send_header("Content-Length", "1000")
    http.end_headers()
    http.wfile.write(b"half")
    http.reset()


@pytest.mark.parametrize("fail", [lambda http: http.answer(503), lambda http: http.answer(429), Handler.reset, cut])
def test_temporary_failures_are_retried_a_few_times(fail: Any, folder: str, tmp_path: Path, task_log: TaskLog) -> None:
    failures = 2

    def answer(http: Handler) -> None:
        fail(http) if len(store.asked) <= failures else http.answer(200, b"pixels")

    with serve(answer) as store:
        assert read(save(store, folder, link(store))[0]["path"]) == b"pixels"
        store.asked.clear()
        failures = 100
        assert all("path" not in artifact for artifact in save(store, folder, *[link(store)] * 3, request_id="r2"))
    assert len(store.asked) == 3 + 1 + 1, "all artifacts of a run share the retries"
    assert list(files(tmp_path)) == ["out/r1/1_chart.png"]
    assert len(task_log.lines()) == 3
    assert "secret" not in str(task_log)


def test_a_storage_that_fails_loses_no_result(store: Server, tmp_path: Path, task_log: TaskLog) -> None:
    (tmp_path / "out").write_text("a file, where the folder should be")
    for folder in (f"file://{tmp_path}/out", "nowhere://out", "out"):
        artifact = link(store)
        assert save(store, folder, artifact) == [artifact]
    assert len(task_log.lines()) == 3


@pytest.mark.parametrize("artifact", ["odd", None, 5, [], {}, {"name": "a", "url": None, "content": None}])
def test_odd_artifacts_are_passed_on(artifact: Any, store: Server, folder: str) -> None:
    assert save(store, folder, artifact) == [artifact]


def test_a_run_stores_a_limited_number(store: Server, folder: str, tmp_path: Path, task_log: TaskLog) -> None:
    artifacts = [{"name": "a", "content": "a"}] * (MAX_ARTIFACTS + 2)
    assert sum("path" in artifact for artifact in save(store, folder, *artifacts)) == MAX_ARTIFACTS
    assert len(files(tmp_path)) == MAX_ARTIFACTS
    assert task_log.lines() == ["ask: 2 artifacts are passed on unchanged: at most 100 of a run are stored"]


REVIEW = "The coffee is wonderful."


def operator(query: Any = REVIEW, **arguments: Any) -> AixplainRunAgentOperator:
    return AixplainRunAgentOperator(
        **{"task_id": "ask", "agent_id": "review-analyst", "query": query, "deferrable": False, **arguments}
    )


@pytest.mark.usefixtures("connection")
class TestOperator:
    """The argument of the operator, with the emulator's agents."""

    def test_the_task_returns_paths(self, folder: str) -> None:
        result = operator(artifacts_path=folder).execute(CONTEXT)
        (artifact,) = result["artifacts"]
        assert artifact["path"] == f"{folder}/{result['request_id']}/1_reviews.csv"
        assert REVIEW in read(artifact["path"]).decode()
        assert result["data"]["artifacts"] == [artifact]
        assert not {"url", "url_expires_at", "content"} & set(artifact)

    def test_artifacts_are_passed_on_by_default(self) -> None:
        assert set(operator().execute(CONTEXT)["artifacts"][0]) > {"url", "url_expires_at"}

    def test_an_expired_link_loses_no_result(self, folder: str) -> None:
        task = operator({"input": REVIEW, "link_seconds": 0}, artifacts_path=folder)
        result = task.execute(CONTEXT)
        assert (result["status"], result["artifacts"][0]["name"]) == ("SUCCESS", "reviews.csv")
        assert "path" not in result["artifacts"][0]

    def test_a_decorated_function_stores_artifacts_too(self, folder: str) -> None:
        task = AixplainAgentDecoratedOperator(
            task_id="ask",
            agent_id="review-analyst",
            python_callable=lambda: REVIEW,
            deferrable=False,
            artifacts_path=folder,
        )
        assert "path" in task.execute(CONTEXT)["artifacts"][0]

    def test_the_path_is_a_template_or_an_object_path(self, folder: str) -> None:
        task = operator(artifacts_path=f"{folder}/{{{{ day }}}}")
        task.render_template_fields({"day": "monday", "task": task})  # type: ignore[typeddict-item]
        assert task.execute(CONTEXT)["artifacts"][0]["path"].startswith(f"{folder}/monday/")
        result = operator(artifacts_path=ObjectStoragePath(folder)).execute(CONTEXT)
        assert result["artifacts"][0]["path"].startswith(f"{folder}/")

    @pytest.mark.parametrize(
        ("path", "named"),
        [
            ("out", "artifacts_path is 'out': give the URI of a folder"),
            ("s3://", "artifacts_path is 's3://'"),
            ("s3://bucket/*", "artifacts_path is .*wildcards"),
            ("nowhere://out", "artifacts_path is 'nowhere://out', but Airflow has no filesystem"),
            ("{{ none }}", "artifacts_path: its template rendered to None"),
        ],
    )
    def test_a_bad_path_is_named_before_the_submission(self, path: str, named: str, emulator: Emulator) -> None:
        task = operator(artifacts_path=path)
        task.render_template_fields({"none": None, "task": task})  # type: ignore[typeddict-item]
        before = len(emulator.runs())
        with pytest.raises(AixplainInputError, match=named):
            task.execute(CONTEXT)
        assert len(emulator.runs()) == before

    def test_a_task_that_does_not_wait_has_no_artifacts(self) -> None:
        with pytest.raises(AixplainInputError, match="artifacts_path and wait_for_completion=False: choose one"):
            operator(artifacts_path="file:///out", wait_for_completion=False)

    @pytest.mark.skipif(not AIRFLOW_3, reason="below Airflow 3.3 a worker finishes every task")
    def test_a_worker_finishes_a_task_with_artifacts(self) -> None:
        settings: dict[str, Any] = {"do_xcom_push": False, "durable": False}
        assert reason_not_end_from_trigger(operator(**settings)) is None
        task = operator(**settings, artifacts_path="file:///out")
        assert reason_not_end_from_trigger(task) == "its artifacts, which a worker downloads"


class TaskState(dict[str, Any]):
    """The state store that Airflow 3.3 gives a task."""

    set = dict.__setitem__

    def delete(self, key: str) -> None:
        self.pop(key, None)


def test_a_result_counts_as_delivered_after_its_artifacts(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the worker is killed during a download, a retry and a cleared task find the same run.

    The second try re-attaches to a run that has finished.
    """
    state, delivered = TaskState(), []

    def answer(http: Handler) -> None:
        if http.command == "POST":
            http.answer(200, json.dumps({"requestId": "r1", "data": f"{server.url}/result"}).encode())
        elif http.path == "/result":
            data = {"output": "done", "artifacts": [link(server)]}
            http.answer(200, json.dumps({"completed": True, "requestId": "r1", "data": data}).encode())
        else:
            delivered.append(state["aixplain_submission"]["is_delivered"])
            http.answer(200, b"pixels")

    with serve(answer) as server:
        monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", json.dumps({"host": server.url, "password": KEY}))
        for try_number in (1, 2):
            started = {"_ti_context_from_server": SimpleNamespace(xcom_keys_to_clear=[])}
            instance = SimpleNamespace(max_tries=1, try_number=try_number, xcom_push=Mock(), **started)
            context: Any = {"task_state_store": state, "ti": instance}
            operator(artifacts_path=folder).execute(context)
            assert state["aixplain_submission"]["is_delivered"]
    assert delivered == [False, False]
    assert sum(request.method == "POST" for request in server.asked) == 1
