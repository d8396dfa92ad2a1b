"""The base of the decorators: an operator whose input a function computes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_aixplain.compat import BaseOperator, DecoratedOperator, context_merge, determine_kwargs

if TYPE_CHECKING:
    from airflow.sdk import Context

PLACEHOLDER = "the result of the function"
"""Stands for the input until the function has run, also in the UI."""


class InputFromFunction(DecoratedOperator):
    """Computes an operator's input by a function. It precedes the operator in the bases of a class.

    :param python_callable: the function.
    :param op_args: its positional arguments. (templated)
    :param op_kwargs: its arguments by name. (templated)
    """

    computed_argument: ClassVar[str]
    """The name of the operator's argument that the function computes."""

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **{**kwargs, self.computed_argument: PLACEHOLDER},
        )

    def call(self, context: Context) -> Any:
        """Call the function once and return its result: awaited if it is async, an iterator if it is a generator.

        No event loop may run in this thread.
        """
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        value = self.python_callable(*self.op_args, **kwargs)
        if inspect.isawaitable(value):
            value = asyncio.run(_await_result(value))
        return _iter_values(value) if inspect.isasyncgen(value) else value


async def _await_result(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _iter_values(generator: AsyncGenerator[Any, Any]) -> Iterator[Any]:
    """Yield the values of an async generator on demand."""
    loop = asyncio.new_event_loop()
    try:
        while True:
            try:
                value = loop.run_until_complete(anext(generator))
            except StopAsyncIteration:
                return
            yield value
    finally:
        loop.run_until_complete(generator.aclose())
        loop.close()


def template_fields_without(operator: type[BaseOperator], computed_argument: str) -> tuple[str, ...]:
    """Return the templated fields of an operator whose input a function computes.

    :param operator: the class of the operator.
    :param computed_argument: the name of the input, which is not templated.
    """
    names = (name for name in operator.template_fields if name != computed_argument)
    return (*DecoratedOperator.template_fields, *names)
