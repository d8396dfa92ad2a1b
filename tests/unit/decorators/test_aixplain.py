"""``@task.aixplain`` and ``@task.aixplain_agent``: what is made of what the function returns."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, task

from airflow_provider_aixplain.decorators.aixplain import (
    AixplainAgentDecoratedOperator,
    AixplainDecoratedOperator,
    aixplain_agent_task,
    aixplain_task,
)
from airflow_provider_aixplain.exceptions import AixplainInputError
from tests.support.deployment import Emulator
from tests.support.kinds import AGENT, MODEL, Kind

pytestmark = pytest.mark.usefixtures("connection")
CONTEXT: Any = {}


def made_by(returned: Any, kind: Kind = MODEL, **arguments: Any) -> Any:
    def text() -> Any:
        return returned

    create = aixplain_task if kind is MODEL else aixplain_agent_task
    with DAG("decorated", schedule=None):
        output: Any = create(**{f"{kind.name}_id": kind.echo_id, "wait_for_completion": False, **arguments})(text)()
    assert isinstance(output.operator, kind.decorated)
    return output.operator


def sent(emulator: Emulator, returned: Any, kind: Kind = MODEL, **arguments: Any) -> Any:
    context: Any = {}
    made_by(returned, kind, **arguments).execute(context)
    return kind.input_of(emulator.runs()[-1])


@pytest.mark.parametrize(
    ("kind", "returned", "payload"),
    [
        (MODEL, "a text with {{ braces }}", {"data": "a text with {{ braces }}"}),
        (MODEL, {"text": "a", "lang": "en"}, {"text": "a", "lang": "en"}),
        (MODEL, {"data": "5"}, {"data": "5"}),
        (MODEL, {"data": "a", "parameters": {"delay": 0}}, {"data": "a", "delay": 0}),
        (MODEL, {"data": {"text": "a"}, "parameters": None}, {"text": "a"}),
        (AGENT, "a text with {{ braces }}", {"query": {"input": "a text with {{ braces }}"}}),
        (AGENT, {"question": "a", "tone": "kind"}, {"query": {"question": "a", "tone": "kind"}}),
        (AGENT, {"query": "a"}, {"query": {"query": "a"}}),
        (AGENT, {"query": "a", "variables": {"delay": 0}}, {"query": {"input": "a", "delay": 0}}),
        (AGENT, {"query": {"input": "a"}, "variables": None}, {"query": {"input": "a"}}),
    ],
)
def test_the_result_of_the_function_is_sent_unchanged(
    emulator: Emulator, kind: Kind, returned: Any, payload: Any
) -> None:
    assert sent(emulator, returned, kind) == payload


def test_returned_parameters_take_precedence(kind: Kind, emulator: Emulator) -> None:
    returned = {kind.input: "a", kind.parameters: {"delay": 0, "b": 1}}
    expected = kind.payload("a", delay=0, b=1, c=2)
    assert sent(emulator, returned, kind, **{kind.parameters: {"delay": 9, "c": 2}}) == expected


@pytest.mark.parametrize(("returned", "given"), [("b=1", None), ({}, [1])])
def test_parameters_other_than_a_dict_are_refused(kind: Kind, emulator: Emulator, returned: Any, given: Any) -> None:
    value = {kind.input: "a", kind.parameters: returned}
    with pytest.raises(AixplainInputError, match=rf"{kind.parameters} is a (str|list): give a dict"):
        sent(emulator, value, kind, **{kind.parameters: given})


def test_none_is_refused_as_input(kind: Kind, emulator: Emulator) -> None:
    with pytest.raises(AixplainInputError, match=f"{kind.input} is None"):
        sent(emulator, None, kind)


def test_it_has_the_operators_arguments(kind: Kind) -> None:
    operator = made_by("a", kind, end_from_trigger=True, durable=False, retries=3)
    assert (operator.ends_from_trigger, operator.durable, operator.retries) == (True, False, 3)
    assert operator.multiple_outputs is True
    templated = {*kind.operator.template_fields, "op_args", "op_kwargs"} - {kind.input}
    assert set(operator.template_fields) == templated
    assert set(operator.template_fields_renderers) <= templated


def test_airflow_knows_it_by_its_name() -> None:
    with DAG("named", schedule=None):

        @task.aixplain(model_id="echo")
        def summarize() -> str:
            return "a"

        @task.aixplain_agent(agent_id="echo-agent", budget={"max_cost": 1})
        def ask() -> str:
            return "a"

        output: Any = summarize()
        answer: Any = ask()
    assert isinstance(output.operator, AixplainDecoratedOperator)
    assert output.operator.task_id == "summarize"
    assert output.operator.model_id == "echo"
    assert isinstance(answer.operator, AixplainAgentDecoratedOperator)
    assert (answer.operator.task_id, answer.operator.budget) == ("ask", {"max_cost": 1})


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
def test_a_generator_is_refused_when_the_dag_is_read(kind: Kind, function: Any) -> None:
    named = rf"^@task\.aixplain{'_agent' if kind is AGENT else ''}: .* use @task\.aixplain_batch"
    with DAG("generated", schedule=None), pytest.raises(AixplainInputError, match=named):
        kind.decorated(task_id="made", **{f"{kind.name}_id": "a"}, python_callable=function)


def test_a_returned_generator_is_refused(emulator: Emulator) -> None:
    before = len(emulator.runs())
    with pytest.raises(AixplainInputError, match="data is a generator"):
        sent(emulator, generator())
    assert len(emulator.runs()) == before


def test_a_nested_task_does_not_call_its_function(kind: Kind) -> None:
    def text() -> str:
        raise AssertionError("it was called")

    operator = kind.decorated(task_id="made", **{f"{kind.name}_id": "a"}, python_callable=text)
    outer = BaseOperator(task_id="outer")
    context: Any = {"ti": SimpleNamespace(task=outer, task_id="outer")}
    with pytest.raises(AixplainInputError, match="is called within task 'outer'"):
        operator.execute(context)
