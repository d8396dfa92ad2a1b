"""``@task.aixplain``: runs a model on the result of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_provider_aixplain.decorators.function import InputFromFunction, template_fields_without
from airflow_provider_aixplain.exceptions import AixplainInputError
from airflow_provider_aixplain.operators.aixplain import AixplainRunModelOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class AixplainDecoratedOperator(InputFromFunction, AixplainRunModelOperator):
    """Runs a model on the result of a function; created by ``@task.aixplain``.

    The function returns the run's ``data``, or a dict of exactly ``data`` and ``parameters``, which take precedence
    over the decorator's parameters. For text from outside return ``{"data": text}``: a string that contains a JSON
    object sets parameters. Templates in the returned value are not rendered.

    :param python_callable: the function; it may be ``async``, but not a generator: a run has one input.
    :param op_args: its positional arguments. (templated)
    :param op_kwargs: its arguments by name. (templated)
    :raises AixplainInputError: if the function is a generator.
    """

    computed_argument = "data"
    template_fields: Sequence[str] = template_fields_without(AixplainRunModelOperator, computed_argument)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        "parameters": "json",
    }
    custom_operator_name = "@task.aixplain"

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        if inspect.isgeneratorfunction(python_callable) or inspect.isasyncgenfunction(python_callable):
            raise AixplainInputError(
                "@task.aixplain: the function is a generator, but a run has one input: return it instead of yielding,"
                " or use @task.aixplain_batch, which runs the model on each value"
            )
        super().__init__(python_callable=python_callable, **kwargs)

    def execute(self, context: Context) -> Any:
        """Call the function, submit a run with its result, and defer until the run has finished.

        :return: the response as a dict.
        """
        self._refuse_nested(context)
        # Before the function, which may fail: Airflow reports an earlier result only to the first try after a clear.
        self._open_store(context).read()
        data = self.call(context)
        if isinstance(data, Mapping) and data.keys() == {"data", "parameters"}:
            computed = data["parameters"] or {}
            for parameters in (self.parameters or {}, computed):
                if not isinstance(parameters, Mapping):
                    kind = type(parameters).__name__
                    raise AixplainInputError(f"parameters is a {kind}: give a dict from names to values")
            data, self.parameters = data["data"], {**(self.parameters or {}), **computed}
        self.data, self._raw_arguments = data, {**self._raw_arguments, self.computed_argument: None}
        return AixplainRunModelOperator.execute(self, context)


def aixplain_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool = True, **kwargs: Any
) -> TaskDecorator:
    """Create a task that runs a model on the result of a function.

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
