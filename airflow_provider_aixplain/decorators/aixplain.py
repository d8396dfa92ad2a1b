"""``@task.aixplain`` and ``@task.aixplain_agent``: run a model or an agent on the result of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_aixplain.compat import DecoratedOperator, TaskDecorator, task_decorator_factory
from airflow_provider_aixplain.decorators.function import InputFromFunction, template_fields_without
from airflow_provider_aixplain.exceptions import AixplainInputError, translate_protocol_errors
from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator, AixplainRunModelOperator
from airflow_provider_aixplain.operators.run import RunBaseOperator
from airflow_provider_aixplain.protocol.assets import require_mapping

if TYPE_CHECKING:
    from airflow.sdk import Context


class RunInputFromFunction(InputFromFunction, RunBaseOperator):
    """Computes the input of a run by a function. It precedes the operator in the bases of a class.

    The function returns the operator's ``computed_argument``, or a dict of exactly that and ``merged_argument``, whose
    values take precedence over those of the decorator. Templates in the returned value are not rendered.

    :param python_callable: the function; it may be ``async``, but not a generator: a run has one input.
    :param op_args: its positional arguments. (templated)
    :param op_kwargs: its arguments by name. (templated)
    :raises AixplainInputError: if the function is a generator.
    """

    merged_argument: ClassVar[str]
    custom_operator_name: ClassVar[str]

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        if inspect.isgeneratorfunction(python_callable) or inspect.isasyncgenfunction(python_callable):
            raise AixplainInputError(
                f"{self.custom_operator_name}: the function is a generator, but a run has one input: return it instead"
                " of yielding, or use @task.aixplain_batch, which makes a run of each value"
            )
        super().__init__(python_callable=python_callable, **kwargs)

    def execute(self, context: Context) -> Any:
        """Call the function, submit a run with its result, and defer until the run has finished.

        :return: the response as a dict.
        """
        self._refuse_nested(context)
        # Before the function, which may fail: Airflow reports an earlier result only to the first try after a clear.
        self._open_store(context).read()
        value, merged = self.call(context), self.merged_argument
        if isinstance(value, Mapping) and value.keys() == {self.computed_argument, merged}:
            with translate_protocol_errors():
                parts = [require_mapping(merged, part) for part in (getattr(self, merged), value[merged])]
            setattr(self, merged, {**parts[0], **parts[1]})
            value = value[self.computed_argument]
        setattr(self, self.computed_argument, value)
        self._raw_arguments = {**self._raw_arguments, self.computed_argument: None}
        return RunBaseOperator.execute(self, context)


class AixplainDecoratedOperator(RunInputFromFunction, AixplainRunModelOperator):
    """Runs a model on the result of a function; created by ``@task.aixplain``.

    The function returns ``data``, or a dict of ``data`` and ``parameters``. For text from outside return
    ``{"data": text}``: a string that contains a JSON object sets parameters.
    """

    computed_argument = "data"
    merged_argument = "parameters"
    template_fields: Sequence[str] = template_fields_without(AixplainRunModelOperator, computed_argument)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        "parameters": "json",
    }
    custom_operator_name = "@task.aixplain"


class AixplainAgentDecoratedOperator(RunInputFromFunction, AixplainRunAgentOperator):
    """Runs an agent on the result of a function; created by ``@task.aixplain_agent``.

    The function returns the ``query``, or a dict of ``query`` and ``variables``.
    """

    computed_argument = "query"
    merged_argument = "variables"
    template_fields: Sequence[str] = template_fields_without(AixplainRunAgentOperator, computed_argument)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        "variables": "json",
        "attachments": "json",
    }
    custom_operator_name = "@task.aixplain_agent"


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


def aixplain_agent_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool = True, **kwargs: Any
) -> TaskDecorator:
    """Create a task that runs an agent on the result of a function.

    :param python_callable: the function.
    :param multiple_outputs: whether each field of the response is an XCom of its own.
    :param kwargs: the arguments of :class:`~airflow_provider_aixplain.operators.aixplain.AixplainRunAgentOperator`,
        except ``query``.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=AixplainAgentDecoratedOperator,
        **kwargs,
    )
