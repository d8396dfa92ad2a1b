"""The hook that offers agents to the provider ``common.ai``, for example as tools of an ``AgentOperator``."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import fields
from typing import Any

from airflow_provider_aixplain.compat import AirflowOptionalProviderFeatureException
from airflow_provider_aixplain.exceptions import (
    AixplainError,
    AixplainInputError,
    AixplainRunFailed,
    AixplainRunTimeout,
    submission_error,
)
from airflow_provider_aixplain.hooks.aixplain import AixplainHook
from airflow_provider_aixplain.protocol.agent import AgentInput
from airflow_provider_aixplain.protocol.assets import Asset
from airflow_provider_aixplain.protocol.failure import ErrorCategory
from airflow_provider_aixplain.protocol.response import ResponseStatus, failure_reason, format_cost
from airflow_provider_aixplain.protocol.values import join_names, parse_json, to_printable

try:
    from airflow.providers.common.ai.exceptions import ManagedAgentInvocationError, ManagedAgentRejected
    from airflow.providers.common.ai.managed_agents.base import (
        BaseManagedAgentHook,
        ManagedAgentCapabilities,
        ManagedAgentRef,
        ManagedAgentRequest,
        ManagedAgentResponse,
    )
except ImportError as error:
    reason = "" if sys.version_info >= (3, 11) else "; it requires Python 3.11 or later, and this is Python 3.10"
    raise AirflowOptionalProviderFeatureException(
        "AixplainManagedAgentHook requires apache-airflow-providers-common-ai 1.x: install the extra common-ai, as in"
        f" pip install 'airflow-provider-aixplain[common-ai]'{reason}"
    ) from error

log = logging.getLogger(__name__)

OPTIONS = [field.name for field in fields(AgentInput) if field.name not in ("agent_id", "query", "session_id")]
"""The settings that ``vendor_options`` may have; the others would change what is called."""


class AixplainManagedAgentHook(AixplainHook, BaseManagedAgentHook):  # type: ignore[misc] # Any where it is not installed
    """An :class:`~airflow_provider_aixplain.hooks.aixplain.AixplainHook` for the provider ``common.ai``.

    ``hook.agent(agent_id)`` returns a client of an agent or a team agent, which ``ManagedAgentToolset`` offers to a
    calling model as a tool, and ``FailoverManagedAgentClient`` combines with others. Each call is a billed run, and
    blocks until the run has finished.

    :param aixplain_conn_id: the id of a Connection of type ``aixplain``.
    """

    agent_platform = "aixplain.agent"

    def resolve_agent(self, agent: str) -> ManagedAgentRef:
        """Return the identity of an agent, without a request."""
        return ManagedAgentRef(self.agent_platform, agent)

    def get_agent_capabilities(self, agent: str) -> ManagedAgentCapabilities:
        """Return what every agent can do: continue a session, return JSON, and name its run. No request is made."""
        return ManagedAgentCapabilities(sessions=True, structured_output=True, trace=True)

    def invoke_agent(self, agent: str, request: ManagedAgentRequest) -> ManagedAgentResponse:
        """Run an agent and wait for its answer, blocking. It is billed, and sent exactly once.

        :param agent: the id of an agent or a team agent on the platform.
        :param request: the prompt, or one message of a user; ``timeout`` is in seconds, default 300, and the run
            continues after it. ``vendor_options`` may have the settings of an agent's run, such as ``budget``.
        :return: the answer as ``text``, and as ``structured`` if it is a JSON object or list. ``raw`` is the
            ModelResponse as a dict, with ``output``, ``session_id``, ``request_id`` and ``artifacts``; ``trace_ref`` is
            the ``request_id``.
        :raises ManagedAgentRejected: if the prompt is empty, or the platform finds the request invalid.
        :raises ManagedAgentInvocationError: if the run has failed, or a retry cannot succeed.
        :raises AixplainError: if a retry can succeed, or whether it can is unknown; after the timeout an
            ``AixplainRunTimeout``.
        :raises AixplainInputError: if a message, an option or the timeout is invalid; nothing was sent.
        """
        query, options = _read_query(request), request.vendor_options
        if unknown := [name for name in options if name not in OPTIONS]:
            raise AixplainInputError(
                f"vendor_options has {join_names(unknown, 10)}: the options of an agent are {', '.join(OPTIONS)}"
            )
        if not query.strip():
            raise ManagedAgentRejected("The prompt is empty: write what the agent is to do")
        asset = Asset("agent", agent)
        limit: dict[str, Any] = {} if request.timeout is None else {"timeout": request.timeout}
        try:
            response = self.run_agent(agent, query, str(asset), session_id=request.session_id, **limit, **options)
            if not response.completed:
                reason = failure_reason(response)
                raise AixplainRunTimeout(f"{asset.title}: {reason}; the run continues; poll URL: {response.url}")
            if response.status is not ResponseStatus.SUCCESS:
                raise submission_error(response, asset)
        except AixplainInputError:
            raise
        except AixplainError as error:
            if error.category == ErrorCategory.VALIDATION:
                raise ManagedAgentRejected(str(error)) from error
            if error.retryable is False or isinstance(error, AixplainRunFailed):
                raise ManagedAgentInvocationError(str(error)) from error
            raise
        log.info("%s succeeded after %s", asset.title, format_cost(response))
        if response.error_message:
            log.warning("%s succeeded with a warning: %s", asset.title, to_printable(response.error_message))
        raw = asset.result(response.to_dict())
        output = "" if raw["output"] is None else raw["output"]
        value = parse_json(output) if isinstance(output, str) else output
        return ManagedAgentResponse(
            text=output if isinstance(output, str) else json.dumps(output, ensure_ascii=False),
            raw=raw,
            structured=value if isinstance(value, (dict, list)) else None,
            session_id=raw["session_id"],
            trace_ref=raw["request_id"],
        )


def _read_query(request: ManagedAgentRequest) -> str:
    """Return the text of a request.

    :raises AixplainInputError: if the request has anything but one text of a user: the platform keeps conversations
        itself.
    """
    match request.as_messages():
        case [{"role": "user", "content": str(text)}] | [
            {"role": "user", "content": [{"type": "text", "text": str(text)}]}
        ]:
            return text
    raise AixplainInputError(
        "messages is not one text of a user: give a prompt, and continue a conversation with the session_id of its"
        " last answer"
    )
