"""``@task.aixplain_batch``: runs a model or an agent on each row that a function returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_aixplain.compat import DecoratedOperator, TaskDecorator, task_decorator_factory
from airflow_provider_aixplain.decorators.function import InputFromFunction, template_fields_without
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class AixplainBatchDecoratedOperator(InputFromFunction, AixplainBatchRunOperator):
    """Runs a model or an agent on each row that a function returns; created by ``@task.aixplain_batch``.

    :param python_callable: the function, which may be ``async``; it returns the ``input``: a list or an iterator; or
        the URI or path of a file or folder, which the worker reads, so return untrusted text only as an item of a
        list. A generator is read row by row.
    :param op_args: its positional arguments. (templated)
    :param op_kwargs: its arguments by name. (templated)
    """

    computed_argument = "input"
    template_fields: Sequence[str] = template_fields_without(AixplainBatchRunOperator, computed_argument)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **AixplainBatchRunOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.aixplain_batch"

    def execute(self, context: Context) -> Any:
        """Call the function, and run the model or agent on each row of its result.

        :return: the manifest.
        """
        self._refuse_nested(context)
        self.input = self.call(context)
        return AixplainBatchRunOperator.execute(self, context)


def aixplain_batch_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Create a task that runs a model or an agent on each row that a function returns.

    :param python_callable: the function.
    :param kwargs: the arguments of :class:`~airflow_provider_aixplain.operators.batch.AixplainBatchRunOperator`, except
        ``input``.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=AixplainBatchDecoratedOperator,
        **kwargs,
    )
