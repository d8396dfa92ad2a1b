"""Models and agents: the arguments with which a test runs both on the emulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_aixplain.decorators.aixplain import AixplainAgentDecoratedOperator, AixplainDecoratedOperator
from airflow_provider_aixplain.operators.aixplain import AixplainRunAgentOperator, AixplainRunModelOperator
from airflow_provider_aixplain.operators.run import RunBaseOperator
from tests.support.deployment import Emulator
from tests.support.public_api import AGENT_FIELDS, RESPONSE_FIELDS


@dataclass(frozen=True)
class Kind:
    """Models or agents.

    :param name: ``model`` or ``agent``.
    :param operator: the operator that runs one.
    :param decorated: the operator of its decorator.
    :param default: the arguments of a run that rates a review.
    :param echo_id: the id of one that returns its input.
    :param input: the name of the argument with the input.
    :param parameters: the name of the argument with further values.
    :param failing: the arguments of a run that fails.
    :param fields: the fields of its result.
    """

    name: str
    operator: type[RunBaseOperator]
    decorated: type[Any]
    default: Mapping[str, Any]
    echo_id: str
    input: str
    parameters: str
    failing: Mapping[str, Any]
    fields: set[str]

    def echo(self, text: Any, **parameters: Any) -> dict[str, Any]:
        """Return the arguments of a run that returns a text.

        :param parameters: such as ``delay``, the seconds that it takes.
        """
        return {f"{self.name}_id": self.echo_id, self.input: text, self.parameters: parameters}

    def fail(self, **parameters: Any) -> dict[str, Any]:
        """Return the arguments of a run that fails."""
        return {**self.failing, self.parameters: {**self.failing.get(self.parameters, {}), **parameters}}

    def payload(self, text: Any, **parameters: Any) -> dict[str, Any]:
        """Return the part of a submission that is its input: a text, and parameters."""
        return {"query": {"input": text, **parameters}} if self.name == "agent" else {"data": text, **parameters}

    def input_of(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of a submission that :meth:`payload` returns."""
        payload = run["payload"]
        return {"query": payload["query"]} if self.name == "agent" else dict(payload)


REVIEW = "The coffee is wonderful."
MODEL = Kind(
    "model",
    AixplainRunModelOperator,
    AixplainDecoratedOperator,
    {"model_id": "sentiment", "data": REVIEW},
    "echo",
    "data",
    "parameters",
    {"model_id": "fail", "data": REVIEW},
    RESPONSE_FIELDS,
)
AGENT = Kind(
    "agent",
    AixplainRunAgentOperator,
    AixplainAgentDecoratedOperator,
    {"agent_id": "review-analyst", "query": REVIEW},
    "echo-agent",
    "query",
    "variables",
    {"agent_id": "echo-agent", "query": REVIEW, "variables": {"outcome": "failed"}},
    AGENT_FIELDS,
)


def submissions(emulator: Emulator, text: Any) -> int:
    """Return the number of runs of any kind that were submitted with a text."""
    inputs = [run["payload"].get("query", run["payload"]) for run in emulator.runs()]
    return sum(text in (one.get("input"), one.get("data")) for one in inputs if isinstance(one, dict))
