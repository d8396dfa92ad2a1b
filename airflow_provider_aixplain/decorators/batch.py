"""``@task.aixplain_batch``: runs a model on each row that a function returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    TaskDecorator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_aixplain.decorators.aixplain import MADE_BY_THE_FUNCTION
from airflow_provider_aixplain.operators.batch import AixplainBatchRunOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class AixplainBatchDecoratedOperator(DecoratedOperator, AixplainBatchRunOperator):
    """Runs a model on each row that a function returns; made by ``@task.aixplain_batch``.

    :param python_callable: the function; it returns the ``input``: a list, or the URI or path of a file.
    :param op_args: its positional arguments. (templated)
    :param op_kwargs: its arguments by name. (templated)
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in AixplainBatchRunOperator.template_fields if name != "input"),
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **AixplainBatchRunOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.aixplain_batch"

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
            input=MADE_BY_THE_FUNCTION,
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        """Call the function, and run the model on each row that it returns.

        :return: the manifest.
        """
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        self.input = self.python_callable(*self.op_args, **kwargs)
        return AixplainBatchRunOperator.execute(self, context)


def aixplain_batch_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a task of a function that runs a model on each row that the function returns.

    :param python_callable: the function.
    :param kwargs: the arguments of :class:`~airflow_provider_aixplain.operators.batch.AixplainBatchRunOperator`, except
        ``input``.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        decorated_operator_class=AixplainBatchDecoratedOperator,
        **kwargs,
    )
