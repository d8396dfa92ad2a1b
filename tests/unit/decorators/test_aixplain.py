"""``@task.aixplain``: what is made of what the function returns."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, task

from airflow_provider_aixplain.decorators.aixplain import AixplainDecoratedOperator, aixplain_task
from airflow_provider_aixplain.exceptions import AixplainInputError
from tests.support.deployment import Emulator

pytestmark = pytest.mark.usefixtures("connection")
CONTEXT: Any = {}


def made_by(returned: Any, **arguments: Any) -> AixplainDecoratedOperator:
    def text() -> Any:
        return returned

    with DAG("decorated", schedule=None):
        output: Any = aixplain_task(**{"model_id": "echo", "wait_for_completion": False, **arguments})(text)()
    operator: AixplainDecoratedOperator = output.operator
    return operator


def sent(emulator: Emulator, returned: Any, **arguments: Any) -> Any:
    context: Any = {}
    made_by(returned, **arguments).execute(context)
    return emulator.runs()[-1]["payload"]


@pytest.mark.parametrize(
    ("returned", "payload"),
    [
        ("a text with {{ braces }}", {"data": "a text with {{ braces }}"}),
        ({"text": "a", "lang": "en"}, {"text": "a", "lang": "en"}),
        ({"data": "5"}, {"data": "5"}),
        ({"data": "a", "parameters": {"delay": 0}}, {"data": "a", "delay": 0}),
        ({"data": {"text": "a"}, "parameters": None}, {"text": "a"}),
    ],
)
def test_the_result_of_the_function_is_sent_unchanged(emulator: Emulator, returned: Any, payload: Any) -> None:
    assert sent(emulator, returned) == payload


def test_returned_parameters_take_precedence(emulator: Emulator) -> None:
    returned = {"data": "a", "parameters": {"delay": 0, "b": 1}}
    assert sent(emulator, returned, parameters={"delay": 9, "c": 2}) == {"data": "a", "delay": 0, "b": 1, "c": 2}


@pytest.mark.parametrize(
    ("returned", "arguments"),
    [({"data": "a", "parameters": "b=1"}, {}), ({"data": "a", "parameters": {}}, {"parameters": [1]})],
)
def test_parameters_other_than_a_dict_are_refused(emulator: Emulator, returned: Any, arguments: Any) -> None:
    with pytest.raises(AixplainInputError, match=r"parameters is a (str|list): give a dict"):
        sent(emulator, returned, **arguments)


def test_none_is_refused_as_input(emulator: Emulator) -> None:
    with pytest.raises(AixplainInputError, match="data is None"):
        sent(emulator, None)


def test_it_has_the_operators_arguments() -> None:
    operator = made_by("a", end_from_trigger=True, durable=False, retries=3)
    assert (operator.ends_from_trigger, operator.durable, operator.retries) == (True, False, 3)
    assert operator.multiple_outputs is True
    assert {"model_id", "parameters", "op_args", "op_kwargs"} <= set(operator.template_fields)
    assert "data" not in operator.template_fields


def test_airflow_knows_it_by_its_name() -> None:
    with DAG("named", schedule=None):

        @task.aixplain(model_id="echo")
        def summarize() -> str:
            return "a"

        output: Any = summarize()
    assert isinstance(output.operator, AixplainDecoratedOperator)
    assert output.operator.task_id == "summarize"
    assert output.operator.model_id == "echo"


class Function:
    """A callable object whose call is async."""

    async def __call__(self, text: str) -> Any:
        await asyncio.sleep(0)
        return {"data": text, "parameters": {"delay": 0}}


async def asynchronous(text: str) -> Any:
    return await Function()(text)


@functools.wraps(asynchronous)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return asynchronous(*args, **kwargs)


@pytest.mark.parametrize(
    "function",
    [asynchronous, Function(), functools.partial(asynchronous), wrapped],
    ids=["function", "object", "partial", "wrapped"],
)
def test_an_async_function_is_awaited(emulator: Emulator, function: Any) -> None:
    operator = AixplainDecoratedOperator(
        task_id="made", model_id="echo", wait_for_completion=False, python_callable=function, op_args=["hello"]
    )
    operator.execute(CONTEXT)
    assert emulator.runs()[-1]["payload"] == {"data": "hello", "delay": 0}


def generator() -> Iterator[str]:
    yield "a"


async def async_generator() -> AsyncIterator[str]:
    yield "a"


@pytest.mark.parametrize("function", [generator, async_generator, functools.partial(generator)])
def test_a_generator_is_refused_when_the_dag_is_read(function: Any) -> None:
    with DAG("generated", schedule=None), pytest.raises(AixplainInputError, match=r"use @task\.aixplain_batch"):
        AixplainDecoratedOperator(task_id="made", model_id="echo", python_callable=function)


def test_a_returned_generator_is_refused(emulator: Emulator) -> None:
    before = len(emulator.runs())
    with pytest.raises(AixplainInputError, match="data is a generator"):
        sent(emulator, generator())
    assert len(emulator.runs()) == before


def test_a_nested_task_does_not_call_its_function() -> None:
    def text() -> str:
        raise AssertionError("it was called")

    operator = AixplainDecoratedOperator(task_id="made", model_id="echo", python_callable=text)
    outer = BaseOperator(task_id="outer")
    context: Any = {"ti": SimpleNamespace(task=outer, task_id="outer")}
    with pytest.raises(AixplainInputError, match="is called within task 'outer'"):
        operator.execute(context)
