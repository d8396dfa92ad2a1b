"""The page's API in a real API server, with two users who may read different DAGs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import create_engine, update

from airflow_provider_aixplain import __version__, compat
from airflow_provider_aixplain.ui import api
from tests.support.deployment import Airflow, Processes
from tests.support.usage import Database, add_dags, make_usage

NOW = datetime.now(timezone.utc)
PASSWORDS = {"alice": "of-alice", "bob": "of-bob"}
SETTINGS = {
    "core__auth_manager": "tests.support.dag_rights.DagRights",
    "core__simple_auth_manager_all_admins": False,
    "core__simple_auth_manager_users": "alice:viewer,bob:viewer",
}
BATCH = {
    **{"rows": 9, "done": 4, "failed": 1, "in_flight": 2, "is_finished": False},
    **{"started_at": "2026-11-20T12:00:00Z", "updated_at": "2026-11-20T12:30:00Z"},
}


class Server:
    """An API server, and the pages of its users."""

    def __init__(self, url: str, database: Database) -> None:
        self.url = url
        self.database = database
        self.tokens = {
            user: requests.post(f"{url}/auth/token", json={"username": user, "password": password}, timeout=30).json()[
                "access_token"
            ]
            for user, password in PASSWORDS.items()
        }

    def get(self, path: str, user: str | None = "alice", **query: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.tokens[user]}"} if user else {}
        return requests.get(f"{self.url}/{path}", query, headers=headers, timeout=30)

    def usage(self, user: str = "alice", **query: Any) -> dict[str, Any]:
        response = self.get("aixplain/api/usage", user, **query)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def csv(self, user: str = "alice", **query: Any) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.get("aixplain/api/usage.csv", user, **query).text)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home: Path = tmp_path_factory.mktemp("page") / "airflow"
    with Processes(home) as processes:
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps(PASSWORDS))
        settings = {**SETTINGS, "core__simple_auth_manager_passwords_file": passwords}
        airflow = Airflow(processes, home, {}, settings=settings, components=("api-server",))
        airflow.start(without=("scheduler", "triggerer", "dag-processor"))
        engine = create_engine(processes.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
        add_dags(engine, "alice_dag", "bob_dag")
        database = Database(engine)
        for day in range(40):
            database.add("alice_dag", make_usage("0.1", run_time=2.0), NOW - timedelta(days=day), task_id="=task")
        database.add(
            "alice_dag",
            make_usage("7", runs={"failed": 2}, page="javascript:alert(1)"),
            NOW - timedelta(days=100),
            map_index=3,
        )
        database.add("bob_dag", make_usage("5", agent_id="bobs", runs={"refused": 1}), NOW)
        for dag_id in ("alice_dag", "bob_dag"):
            database.add(dag_id, make_usage("1", model_id="batch", batch=BATCH), NOW, state="deferred", task_id="batch")
        database.add("alice_dag", {"version": 9}, NOW)
        yield Server(airflow.url, database)


def test_the_default_is_the_last_thirty_days(server: Server) -> None:
    answer = server.usage()
    assert (answer["is_complete"], answer["days_left"]) == (True, 0)
    assert answer["totals"] == {"credits": "4", "runs": 31, "tasks": 31, "tokens": 310, "outcomes": {"success": 31}}
    assert len(answer["days"]) == 30
    assert answer["days"][-1]["credits"] == {"model:sentiment": "0.1", "model:batch": "1"}
    assert answer["durations"]["run_time"] == {
        "median": pytest.approx(2, rel=0.05),
        "p95": pytest.approx(2, rel=0.05),
        "count": 30,
    }


def test_a_page_of_runs_has_all_fields(server: Server) -> None:
    answer = server.usage(start=str(NOW.date() - timedelta(days=200)), sort="-credits", limit=1)
    assert answer["total_runs_rows"] == 42
    assert answer["runs"] == [
        {
            **{"dag_id": "alice_dag", "run_id": "run_41", "task_id": "run", "map_index": 3},
            **{
                "run_after": (NOW - timedelta(days=100)).isoformat(),
                "model_id": "sentiment",
                "page": "",
            },
            **{"credits": "7", "tokens": 10, "run_time": None, "wait_time": None, "outcomes": {"failed": 2}},
        }
    ]
    newest = server.usage(limit=2, offset=1, model_id="sentiment")["runs"]
    assert newest[0]["page"] == "https://h/sentiment"
    assert newest[0]["run_after"] > newest[1]["run_after"]


def test_filters_select_runs(server: Server) -> None:
    start = str(NOW.date() - timedelta(days=200))
    assert server.usage(start=start, outcome=["failed", "timeout"])["totals"]["credits"] == "7"
    assert server.usage(start=start, model_id=["batch", "none"])["totals"]["credits"] == "1"
    assert server.usage(start=start, agent_id="batch")["totals"]["credits"] == "0"
    assert server.usage(start=start, dag_id="alice_dag", group="kind")["days"][0]["credits"] == {"kind:model": "7"}
    assert [row["credits"] for row in server.csv(start=start, outcome="failed")] == ["7"]


def test_batches_in_progress_are_listed(server: Server) -> None:
    (batch,) = server.usage()["batches"]
    assert (batch["task_id"], batch["model_id"], batch["credits"], batch["batch"]) == ("batch", "batch", "1", BATCH)
    assert server.usage(model_id="sentiment")["batches"] == []


def test_a_user_sees_nothing_of_hidden_dags(server: Server) -> None:
    for name in ("dag_id", "agent_id", "outcome"):
        hidden = {"dag_id": "bob_dag", "agent_id": "bobs", "outcome": "refused"}[name]
        assert server.usage(**{name: hidden})["totals"]["runs"] == 0
        assert server.csv(**{name: hidden}) == []
    for text in (server.get("aixplain/api/usage").text, server.get("aixplain/api/usage.csv").text):
        assert "alice_dag" in text
        assert not [word for word in ("bob_dag", "bobs", "refused") if word in text]
    theirs = server.usage("bob")
    assert (theirs["totals"]["credits"], theirs["filters"]["dag_ids"]) == ("6", ["bob_dag"])
    assert "alice" not in str(theirs)
    assert "alice" not in str(server.csv("bob"))


def test_a_kept_day_gives_no_row_of_another_dag(server: Server) -> None:
    """As when SQLite gives the number of a deleted DAG run to another one."""
    day = NOW - timedelta(days=300)
    period = {"start": str(day.date()), "end": str(day.date() + timedelta(days=1))}
    server.database.add("alice_dag", make_usage(page="https://h/of-bob"), day)
    assert "of-bob" in str(server.usage(**period)["runs"])
    runs = compat.table("dag_run")
    with server.database.engine.begin() as connection:
        connection.execute(update(runs).where(runs.c.run_after == day).values(dag_id="bob_dag", updated_at=day))
    assert server.usage(**period)["runs"] == []


@pytest.mark.parametrize("path", ["aixplain/api/usage", "aixplain/api/usage.csv"])
def test_a_user_has_to_be_logged_in(server: Server, path: str) -> None:
    assert server.get(path, user=None).status_code == 401
    cookies = {"_token": server.tokens["alice"]}
    assert requests.get(f"{server.url}/{path}", cookies=cookies, timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"start": "yesterday"}, "start: Input should be a valid datetime"),
        ({"start": "1066-10-14"}, "start: give a date between 2000 and 2200"),
        ({"start": "2026-11-02", "end": "2026-11-01"}, "end: give a time after start"),
        ({"group": "task"}, "group: Input should be 'asset', 'dag' or 'kind'"),
        ({"sort": "name"}, "sort: Input should be 'credits'"),
        ({"limit": 501}, "limit: Input should be less than or equal to 500"),
        ({"offset": -1}, "offset: Input should be greater than or equal to 0"),
    ],
)
def test_bad_parameters_are_explained(server: Server, query: dict[str, Any], detail: str) -> None:
    response = server.get("aixplain/api/usage", **query)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(detail)


def test_the_download_is_safe_in_spreadsheets(server: Server) -> None:
    response = server.get("aixplain/api/usage.csv", start="2026-01-01", end="2027-01-01T00:00:00+01:00")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="aixplain-usage-2026-01-01-2026-12-31.csv"'
    rows = server.csv()
    assert len(rows) == 31
    assert {row["task_id"] for row in rows} == {"'=task", "batch"}
    assert rows[0].keys() == set(api.COLUMNS)
    assert {(row["map_index"], row["outcomes"], row["agent_id"]) for row in rows} == {("-1", "success=1", "")}
    assert [row["run_after"] for row in rows] == sorted((row["run_after"] for row in rows), reverse=True)


def test_the_page_is_in_the_navigation_and_in_dags(server: Server) -> None:
    plugins = server.get("api/v2/plugins").json()["plugins"]
    (ours,) = [plugin for plugin in plugins if plugin["name"] == "aixplain"]
    assert [(page["destination"], page["url_route"]) for page in ours["react_apps"]] == [
        ("nav", "aixplain"),
        ("dag", "aixplain-dag"),
    ]
    assert {page["bundle_url"] for page in ours["react_apps"]} == {f"/aixplain/static/aixplain.js?v={__version__}"}
