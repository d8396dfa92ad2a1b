"""Where the links of a task lead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_aixplain.links import LINKS, MODEL_LINK, RUN_LINK
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from tests.airflow.deployment import AIRFLOW_3, Emulator

CONTEXT: Any = {}
KEY: Any = None


def task(**arguments: Any) -> AixplainRunModelOperator:
    told = {"task_id": "run", "model_id": "a/b c", "data": "a", **arguments}
    return AixplainRunModelOperator(**told)


def test_to_the_model_even_if_it_refuses_the_run(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {**json.loads(emulator.connection), "extra": {}}
    monkeypatch.setenv("AIRFLOW_CONN_AIXPLAIN_DEFAULT", json.dumps(fields))
    one = task()
    with pytest.raises(Exception, match="no model a/b c"):
        one.execute(CONTEXT)
    page = MODEL_LINK.get_link(one, ti_key=KEY)  # type: ignore[arg-type]
    assert page == "https://platform.aixplain.com/discover/model/a%2Fb%20c"
    assert RUN_LINK.get_link(one, ti_key=KEY) == ""  # type: ignore[arg-type]


@pytest.mark.usefixtures("connection")
def test_to_the_run(emulator: Emulator) -> None:
    one = task(model_id="echo", wait_for_completion=False)
    url = one.execute(CONTEXT)["url"]
    assert RUN_LINK.get_link(one, ti_key=KEY) == url  # type: ignore[arg-type]
    assert url.startswith(emulator.url)


@pytest.mark.usefixtures("connection")
def test_a_last_visit_leaves_what_the_first_has_kept(emulator: Emulator) -> None:
    event = {"status": "success", "message": "", "poll_url": f"{emulator.url}/api/v1/data/1"}
    response = task(model_id="echo", deferrable=False).execute(CONTEXT)
    resumed, started = task(), task()
    told = {"event": {**event, "response": response}}
    resumed.resume_execution("take_event", {**told, "submitted_at": "2026-01-01T00:00:00Z", "timeout": 9}, CONTEXT)
    started.resume_execution("take_event", told, CONTEXT)
    assert tuple(task().operator_extra_links) == LINKS
    assert tuple(resumed.operator_extra_links) == ()
    assert tuple(started.operator_extra_links) == LINKS, "a task that its trigger has started has had no first visit"
    assert RUN_LINK.get_link(started, ti_key=KEY) == event["poll_url"]  # type: ignore[arg-type]


@pytest.mark.usefixtures("connection")
@pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3 keeps them itself")
def test_airflow_2_has_them_in_xcoms(emulator: Emulator) -> None:
    pushed: dict[str, str] = {}
    instance = type("Instance", (), {"xcom_push": lambda _, key, value: pushed.update({key: value})})()
    context: Any = {"ti": instance}
    url = task(model_id="echo", wait_for_completion=False).execute(context)["url"]
    assert pushed[RUN_LINK.xcom_key] == url
    assert pushed[MODEL_LINK.xcom_key].endswith("/discover/model/echo")
