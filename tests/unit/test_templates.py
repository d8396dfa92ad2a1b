"""What templates may render to: rendered by Airflow itself, on tasks, on mapped tasks and as in the triggerer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred
from hypothesis import given

from airflow_provider_aixplain.decorators.aixplain import aixplain_task
from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.sensors.aixplain import AixplainModelRunSensor
from airflow_provider_aixplain.templates import check
from tests.support.deployment import Emulator
from tests.support.task_log import TaskLog
from tests.unit.protocol.strategies import JSON

pytestmark = pytest.mark.usefixtures("connection")
PAYLOAD = '{"data": "hi", "max_tokens": 100000}'
CONTEXT = {"nothing": None, "rows": [{"a": None}], "text": "hi", "payload": PAYLOAD, "run_id": "1"}


def rendered(task: Any) -> Any:
    """The task as a worker executes it."""
    task.render_template_fields(dict(CONTEXT))
    return task


def warnings(task_log: TaskLog) -> list[str]:
    return [line for line in task_log.lines() if "cannot be called outside" not in line]


def run(**arguments: Any) -> AixplainRunModelOperator:
    return AixplainRunModelOperator(**{"task_id": "run", "model_id": "echo", "data": "a", **arguments})


class TestTheRule:
    @pytest.mark.parametrize("template", ["{{ nothing }}", " {{ nothing }}", "{% if a %}{% endif %}None"])
    def test_a_template_that_renders_to_none_is_refused(self, template: str) -> None:
        with pytest.raises(InvalidInput, match=r"data\['a'\]\[1\]: its template rendered to None.*default\("):
            check("data", {"a": ["x", template]}, {"a": ["x", "None"]})

    @pytest.mark.parametrize("literal", ["None", "None\n", None])
    def test_a_literal_none_is_accepted(self, literal: Any) -> None:
        assert check("data", {"a": literal}, {"a": "None"}) == []

    @pytest.mark.parametrize("text", ["{'a': 1}", "[{'a': 1}]", "['x']", "[1, None]", "{1: True}", "[(1, 'a')]"])
    def test_python_notation_is_warned_about(self, text: str) -> None:
        (warning,) = check("data", {"a": "{{ ti.xcom_pull('a') }}"}, {"a": text})
        assert warning.startswith("data['a']: ")
        assert "tojson" in warning
        assert text not in warning

    @pytest.mark.parametrize("text", ['{"a": 1}', "[1, 2]", "[INST] it's [/INST]", "{a}", "hi", "", "[", "[None of it"])
    def test_other_text_is_sent_without_a_warning(self, text: str) -> None:
        assert check("data", "{{ a }}", text) == []

    def test_a_warning_names_a_few_places(self) -> None:
        (warning,) = check("data", ["{{ a }}"] * 1000, ["['a']"] * 1000)
        assert warning.startswith("data[0], data[1], data[2], data[3], data[4] and 995 more: ")

    @given(JSON)
    def test_unchanged_values_are_accepted(self, value: Any) -> None:
        assert check("data", value, value) == []

    @given(JSON, JSON)
    def test_only_none_is_refused_in_any_shape(self, before: Any, after: Any) -> None:
        try:
            check("data", before, after)
        except InvalidInput:
            assert "None" in str(after)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({"data": "{{ nothing }}"}, "data"),
        ({"data": {"a": ("x", {"b": "{{ nothing }}"})}}, r"data\['a'\]\[1\]\['b'\]"),
        ({"parameters": {"language": "{{ nothing }}"}}, r"parameters\['language'\]"),
        ({"model_id": "{{ nothing }}"}, "model_id"),
    ],
)
def test_nothing_is_sent_for_a_missing_value(emulator: Emulator, arguments: dict[str, Any], place: str) -> None:
    before = len(emulator.runs())
    task = rendered(run(**arguments))
    with pytest.raises(AixplainInputError, match=f"^{place}: its template rendered to None"):
        task.execute({})
    assert len(emulator.runs()) == before


def test_a_literal_none_is_sent_as_text(emulator: Emulator) -> None:
    rendered(run(data="None", wait_for_completion=False)).execute({})
    assert emulator.runs()[-1]["payload"] == {"data": "None"}


def test_a_missing_value_is_refused_in_a_mapped_task() -> None:
    with DAG("mapped", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
        mapped: Any = AixplainRunModelOperator.partial(task_id="mapped", model_id="echo").expand(data=["{{ nothing }}"])
    instance = SimpleNamespace(map_index=0, task=mapped)
    context: Any = {**CONTEXT, "ti": instance, "task": mapped, "dag": dag, "dag_run": SimpleNamespace(conf={})}
    mapped.render_template_fields(context)
    task = context["task"]
    assert task is not mapped
    with pytest.raises(AixplainInputError, match="data: its template rendered to None"):
        task.execute({})


def test_a_batch_refuses_a_missing_value(tmp_path: Any) -> None:
    path = f"file://{tmp_path}/out"
    batch = AixplainBatchRunOperator(
        task_id="batch", model_id="echo", input=["a"], result_path=path, parameters={"language": "{{ nothing }}"}
    )
    with pytest.raises(AixplainInputError, match=r"parameters\['language'\]: its template rendered to None"):
        rendered(batch).execute({})


def test_a_sensor_refuses_a_missing_value() -> None:
    with pytest.raises(AixplainInputError, match="poll_url: its template rendered to None"):
        rendered(AixplainModelRunSensor(task_id="wait", poll_url="{{ nothing }}")).execute({})


def decorated(returned: Any, **arguments: Any) -> Any:
    with DAG("decorated", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
        decorate: Any = aixplain_task(**{"model_id": "echo", "wait_for_completion": False, **arguments})

        def text() -> Any:
            return returned

        return decorate(text)().operator


def test_a_decorated_task_refuses_a_missing_value() -> None:
    with pytest.raises(AixplainInputError, match=r"parameters\['a'\]: its template rendered to None"):
        rendered(decorated("a", parameters={"a": "{{ nothing }}"})).execute({})


def test_pythons_text_of_an_xcom_is_warned_about(task_log: TaskLog) -> None:
    rendered(run(data={"data": "{{ rows }}"}, wait_for_completion=False)).execute({})
    (warning,) = warnings(task_log)
    assert warning.startswith("data['data']: the template rendered to Python's representation")


@pytest.mark.parametrize(
    "make", [lambda: run(data="{{ payload }}", wait_for_completion=False), lambda: decorated(PAYLOAD)]
)
def test_text_from_outside_that_sets_parameters_is_warned_about(
    emulator: Emulator, task_log: TaskLog, make: Any
) -> None:
    rendered(make()).execute({})
    (warning,) = warnings(task_log)
    assert "sets data, max_tokens" in warning
    assert '{"data": text}' in warning
    assert "100000" not in str(task_log), "a value is logged"
    assert emulator.runs()[-1]["payload"] == json.loads(PAYLOAD), "it is sent as the platform's own client sends it"


@pytest.mark.parametrize(
    "make",
    [
        lambda: run(data=PAYLOAD, wait_for_completion=False),
        lambda: run(data="{{ text }}", wait_for_completion=False),
        lambda: run(data={"data": "{{ payload }}"}, wait_for_completion=False),
        lambda: decorated({"data": PAYLOAD}),
    ],
)
def test_other_input_is_sent_without_a_warning(make: Any, task_log: TaskLog) -> None:
    rendered(make()).execute({})
    assert warnings(task_log) == []


def test_mapped_text_from_another_task_is_warned_about(task_log: TaskLog) -> None:
    """Airflow renders no such text, and names it by its id."""
    task: Any = run(data=PAYLOAD)
    task._do_render_template_fields(task, task.template_fields, CONTEXT, task.get_template_env(), {id(task.data)})
    with pytest.raises(TaskDeferred):
        task.execute({})
    (warning,) = warnings(task_log)
    assert "sets data, max_tokens" in warning
