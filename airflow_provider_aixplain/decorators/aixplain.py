"""``@task.aixplain``: runs a model on what a function returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_provider_aixplain.decorators.function import InputOfFunction, templated
from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class AixplainDecoratedOperator(InputOfFunction, AixplainRunModelOperator):
    """Runs a model on what a function returns; made by ``@task.aixplain``.

    The function returns the run's ``data``, or a dict of exactly ``data`` and ``parameters``; parameters that the
    decorator names too are the function's then. For text from outside it returns ``{"data": text}``: bare text that
    holds a JSON object sets parameters. Templates in what it returns are not rendered.

    :param python_callable: the function; it may be ``async``, but no generator: a run has one input.
    :param op_args: its positional arguments. (templated)
    :param op_kwargs: its arguments by name. (templated)
    :raises AixplainInputError: if the function is a generator.
    """

    made = "data"
    template_fields: Sequence[str] = templated(AixplainRunModelOperator, made)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        "parameters": "json",
    }
    custom_operator_name = "@task.aixplain"

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        if inspect.isgeneratorfunction(python_callable) or inspect.isasyncgenfunction(python_callable):
            raise AixplainInputError(
                "@task.aixplain: the function is a generator, and a run has one input: return it instead of yielding,"
                " or use @task.aixplain_batch, which runs the model on each value"
            )
        super().__init__(python_callable=python_callable, **kwargs)

    def execute(self, context: Context) -> Any:
        """Call the function, submit a run of what it returns, and defer until it is over.

        :return: the response as a dict.
        """
        self._refuse_nested(context)
        # First: whether an earlier try was delivered is told to this one only, and the function may fail.
        self._record(context).read()
        made = self.call(context)
        if isinstance(made, Mapping) and made.keys() == {"data", "parameters"}:
            own = made["parameters"] or {}
            for parameters in (self.parameters or {}, own):
                if not isinstance(parameters, Mapping):
                    kind = type(parameters).__name__
                    raise AixplainInputError(f"parameters is a {kind}: give a dict from names to values")
            made, self.parameters = made["data"], {**(self.parameters or {}), **own}
        self.data, self._unrendered_values = made, {**self._unrendered_values, self.made: None}
        return AixplainRunModelOperator.execute(self, context)


def aixplain_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool = True, **kwargs: Any
) -> TaskDecorator:
    """Make a task of a function that runs a model on what the function returns.

    :param python_callable: the function.
    :param multiple_outputs: whether each field of the response is an XCom of its own.
    :param kwargs: the arguments of :class:`~airflow_provider_aixplain.operators.aixplain.AixplainRunModelOperator`,
        except ``data``.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=AixplainDecoratedOperator,
        **kwargs,
    )
