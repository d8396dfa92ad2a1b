"""Where the link of a task leads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_aixplain.get_provider_info import get_provider_info
from airflow_provider_aixplain.observability.links import ASSET_LINK
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from tests.support.deployment import AIRFLOW_3, Emulator

CONTEXT: Any = {}
KEY: Any = None


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
    assert get_provider_info()["extra-links"] == ["airflow_provider_aixplain.observability.links.AixplainAssetLink"]


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
