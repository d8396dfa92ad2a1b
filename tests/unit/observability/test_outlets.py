"""What the events of a task's outlets state of its cost."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset
from airflow.providers.common.compat.sdk import AssetAlias as Alias

from airflow_provider_aixplain.exceptions import AixplainRunFailed
from airflow_provider_aixplain.observability.outlets import add_to_outlet_events
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from airflow_provider_aixplain.protocol.assets import Asset as Kind
from airflow_provider_aixplain.protocol.response import ModelResponse, ResponseStatus
from tests.support.deployment import AIRFLOW_3

if AIRFLOW_3:
    from airflow.sdk.execution_time.context import OutletEventAccessors
else:
    from airflow.utils.context import OutletEventAccessors

ONE, TWO = Asset(uri="file:///one"), Asset(uri="file:///two")


def response(**fields: Any) -> dict[str, Any]:
    return ModelResponse(ResponseStatus.SUCCESS, completed=True, **fields).to_dict()


def extras(result: dict[str, Any], *outlets: Any, events: Any = None) -> list[dict[str, Any]]:
    context = {"outlet_events": OutletEventAccessors() if events is None else events}
    task = SimpleNamespace(outlets=list(outlets), asset=Kind("model", "m"))
    add_to_outlet_events(context, task, result)
    return [context["outlet_events"][outlet].extra for outlet in outlets if not isinstance(outlet, str)]


def test_each_outlet_gets_model_credits_and_run_time() -> None:
    figures = {"model_id": "m", "credits": 0.25, "run_time": 1.5}
    assert extras(response(used_credits=0.25, run_time=1.5), ONE, TWO) == [{"aixplain": figures}] * 2


def test_what_the_user_has_set_is_kept() -> None:
    events = OutletEventAccessors()
    events[ONE].extra = {"rows": 5, "aixplain": "mine"}
    events[TWO].extra = {"rows": 5}
    mine, extended = extras(response(used_credits=1, run_time=2), ONE, TWO, events=events)
    assert mine == {"rows": 5, "aixplain": "mine"}
    assert extended == {"rows": 5, "aixplain": {"model_id": "m", "credits": 1, "run_time": 2}}


def test_odd_figures_are_unknown_and_fit_json() -> None:
    (extra,) = extras(response(used_credits="NaN", run_time=None), ONE)
    assert json.loads(json.dumps(extra, allow_nan=False)) == {
        "aixplain": {"model_id": "m", "credits": None, "run_time": None}
    }


def test_outlets_that_are_no_assets_are_skipped() -> None:
    assert "aixplain" in extras(response(), "metadata", Alias("alias"), ONE)[-1]


def test_an_error_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    add_to_outlet_events({}, SimpleNamespace(outlets=[ONE], asset=Kind("model", "m")), response())
    assert "The events of the outlets have no cost: KeyError: 'outlet_events'" in caplog.text


@pytest.mark.usefixtures("connection")
class TestOperators:
    def context(self) -> Any:
        return {"outlet_events": OutletEventAccessors()}

    def test_a_run_and_a_batch_add_their_cost(self, tmp_path: Path) -> None:
        now: Any = {"deferrable": False, "wait_time": 0.2, "parameters": {"delay": 0}, "outlets": [ONE]}
        contexts = self.context(), self.context()
        run = AixplainRunModelOperator(task_id="run", model_id="echo", data="a", **now).execute(contexts[0])
        batch = AixplainBatchRunOperator(
            task_id="batch", model_id="echo", input=["a"], result_path=f"file://{tmp_path}/out", **now
        )
        manifest = batch.execute(contexts[1])
        found = [context["outlet_events"][ONE].extra["aixplain"] for context in contexts]
        assert found[0] == {"model_id": "echo", "credits": run["used_credits"], "run_time": run["run_time"]}
        figures = ("credits", "run_time", "rows", "succeeded", "failed", "path")
        assert found[1] == {"model_id": "echo", **{name: manifest[name] for name in figures}}

    def test_a_failed_run_adds_nothing(self) -> None:
        context = self.context()
        task = AixplainRunModelOperator(task_id="run", model_id="fail", data="a", deferrable=False, outlets=[ONE])
        with pytest.raises(AixplainRunFailed):
            task.execute(context)
        assert context["outlet_events"][ONE].extra == {}
