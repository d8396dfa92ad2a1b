"""What the decorators share: an operator whose input a function makes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator, DecoratedOperator, context_merge, determine_kwargs

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

MADE_BY_THE_FUNCTION = "what the function returns"
"""Stands for the input until the function has run, in the UI too."""


class InputOfFunction(DecoratedOperator):
    """Comes before an operator in the bases of a class, and makes that operator's input.

    :param python_callable: the function.
    :param op_args: its positional arguments. (templated)
    :param op_kwargs: its arguments by name. (templated)
    """

    made: ClassVar[str]
    """The name of the operator's argument that the function makes."""

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
            **{**kwargs, self.made: MADE_BY_THE_FUNCTION},
        )

    def call(self, context: Context) -> Any:
        """Call the function, once, and return its value: awaited if it is async, an iterator if it is a generator.

        Nothing else may run an event loop in this thread.
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
    """Yield the values of an async generator, each one on demand."""
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


def templated(operator: type[BaseOperator], made: str) -> tuple[str, ...]:
    """Return the templated fields of a function's operator: what the function returns is none of them.

    :param operator: the class of operators whose input the function makes.
    :param made: the name of that input.
    """
    return (*DecoratedOperator.template_fields, *(name for name in operator.template_fields if name != made))
