"""The operators: run a model or an agent as a task."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_provider_aixplain.exceptions import AixplainInputError, AixplainRunTimeout, translate_protocol_errors
from airflow_provider_aixplain.operators.run import RunBaseOperator
from airflow_provider_aixplain.protocol.agent import AgentInput, is_pydantic_class
from airflow_provider_aixplain.protocol.payload import ModelInput
from airflow_provider_aixplain.protocol.response import ModelResponse
from airflow_provider_aixplain.protocol.values import to_printable

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

_CODE_BLOCK = re.compile(r"\A\s*```\w*\n(.*)```\s*\Z", re.DOTALL)
"""An answer that is a code block of Markdown: language models often return JSON this way."""


class AixplainRunModelOperator(RunBaseOperator):
    """Runs a model on aiXplain and returns its response.

    A worker submits the run and is free again; a trigger waits for the run; a worker returns the result. The task
    returns the :class:`~airflow_provider_aixplain.model.ModelResponse` as a dict and pushes it as ``return_value``.
    Each field that is not empty is also an XCom of the same name: ``status``, ``data``, ``details``, ``completed``,
    ``error_message``, ``used_credits``, ``run_time``, ``usage``, ``url``, ``error_code``, ``asset`` and
    ``additional_fields``.

    :param model_id: the model's id on the platform. (templated)
    :param data: the input: a string, or any value that JSON can hold. A string that contains a JSON object sets
        parameters too: for text from outside use ``{"data": text}``. An
        :class:`~airflow_provider_aixplain.files.Upload` anywhere in it, or in ``parameters``, is uploaded, and sent as
        a link. (templated)
    :param parameters: further parameters of the model, by name. (templated)
    :param stream: whether to write the model's text to the task's log while it is generated. The task holds its worker
        until the text is complete, and returns the whole text. The model has to support streaming.
    :param kwargs: the arguments of :class:`~airflow_provider_aixplain.operators.run.RunBaseOperator`.
    :raises AixplainInputError: if an argument is invalid.
    """

    input_fields = ("model_id", "data", "parameters")
    template_fields: Sequence[str] = (*input_fields, "name", "aixplain_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"data": "json", "parameters": "json"}

    def __init__(
        self,
        *,
        model_id: str,
        data: Any,
        parameters: Mapping[str, Any] | None = None,
        stream: bool = False,
        **kwargs: Any,
    ) -> None:
        self.model_id = model_id
        self.data = data
        self.parameters = parameters
        self.stream = stream
        super().__init__(**kwargs)  # after the input, which start_trigger_args needs: Airflow reads it in this call
        if stream:
            self._request_name = "the stream"
        if stream and not self.wait_for_completion:
            raise AixplainInputError("stream and wait_for_completion=False: choose one, as a stream is read to its end")

    def run_input(self) -> ModelInput:
        """Return the input of the run."""
        return ModelInput(self.model_id, self.data, self.parameters)

    def _submit(self) -> ModelResponse:
        return self._stream() if self.stream else super()._submit()

    def _stream(self) -> ModelResponse:
        """Return the complete answer of a stream, or the response of a model that did not stream."""
        from airflow_provider_aixplain.operators.log_lines import LineBuffer
        from airflow_provider_aixplain.protocol.stream import Transcript

        start = time.monotonic()
        transcript, lines = Transcript(), LineBuffer()
        with self.hook.run_stream(self.model_id, self.data, self.parameters, self.timeout) as chunks:
            self.log.info("%s: output of model %s:", self.run_name, self.model_id)
            for chunk in chunks:
                for line in lines.add(transcript.add(chunk)):
                    self.log.info("%s", line)
        for line in lines.end():
            self.log.info("%s", line)
        response = transcript.response()
        if response.failure and response.failure.status_code is None and time.monotonic() - start >= self.timeout:
            raise AixplainRunTimeout(f"Model {self.model_id}: its stream did not finish within {self.timeout:g} s")
        return response


class AixplainRunAgentOperator(RunBaseOperator):
    """Runs an agent or a team agent on aiXplain and returns its response.

    It waits, retries and finishes as :class:`AixplainRunModelOperator` does, and returns and pushes the same fields,
    and four more: ``output`` (the agent's answer), ``session_id``, ``request_id`` and ``artifacts`` (a list of dicts,
    with links that expire unless ``artifacts_path`` is set). The steps of the run are in ``data``, and appear in the
    task's log while the agent works.

    An argument that is None is not sent: the agent's own setting applies.

    :param agent_id: the agent's id on the platform. (templated)
    :param query: the question or task: a string, or a dict that is sent unchanged. An
        :class:`~airflow_provider_aixplain.files.Upload` in it is uploaded, and sent as a link. (templated)
    :param variables: the values of the placeholders in the agent's instructions, by name. (templated)
    :param session_id: the ``session_id`` of an earlier run, to continue its conversation. (templated)
    :param attachments: a list of links, of :class:`~airflow_provider_aixplain.files.Upload`, or of dicts of ``url``
        (one of them), ``name``, ``type`` and ``mimeType``. (templated)
    :param tools: parameters of the agent's tools for this run: a list of dicts of ``id`` and ``parameters`` (values by
        name).
    :param output_format: ``text``, ``markdown`` or ``json``.
    :param expected_output: a description of the answer: a string, a dict, or a pydantic class. A class is sent as its
        schema, with the output format ``json`` unless it is set. An answer that does not match it counts as a failed
        run, and a worker always finishes the task.
    :param max_tokens: the maximum length of the answer, in tokens.
    :param max_time: the maximum duration of the run, in seconds.
    :param budget: the caps at which the platform ends the run: a dict of ``max_cost`` (in credits),
        ``max_duration_seconds`` and ``max_iterations``.
    :param artifacts_path: the URI of a folder in which a worker stores the run's artifacts: in object storage, with
        the id of its Connection if it needs one (``s3://aws_default@bucket/folder``); or on a file system that workers
        share (``file:///data/out``). Each stored artifact has the URI of its file as ``path``, instead of ``url`` or
        ``content``. One that cannot be stored is passed on unchanged, with a warning. Default: all are passed on
        unchanged. A worker always finishes a task with this argument. (templated)
    :param kwargs: the arguments of :class:`~airflow_provider_aixplain.operators.run.RunBaseOperator`.
    :raises AixplainInputError: if an argument is invalid.
    """

    input_fields = ("agent_id", "query", "variables", "session_id", "attachments")
    template_fields: Sequence[str] = (*input_fields, "artifacts_path", "name", "aixplain_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"query": "json", "variables": "json", "attachments": "json"}

    def __init__(
        self,
        *,
        agent_id: str,
        query: str | Mapping[str, Any],
        variables: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        attachments: Sequence[Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        output_format: Literal["text", "markdown", "json"] | None = None,
        expected_output: Any = None,
        max_tokens: int | None = None,
        max_time: float | None = None,
        budget: Mapping[str, float] | None = None,
        artifacts_path: str | ObjectStoragePath | None = None,
        **kwargs: Any,
    ) -> None:
        self.agent_id = agent_id
        self.query = query
        self.variables = variables
        self.session_id = session_id
        self.attachments = attachments
        self.tools = tools
        self.output_format = output_format
        self.expected_output = expected_output
        self.max_tokens = max_tokens
        self.max_time = max_time
        self.budget = budget
        self.artifacts_path = artifacts_path
        self.output_type: Any = None
        self._output: Any = None
        super().__init__(**kwargs)  # after the input, as for a model
        with translate_protocol_errors():
            self.run_input().check_settings()
        if is_pydantic_class(expected_output):
            # Airflow stores and compares arguments: a schema has the same text in every process, unlike a class.
            self.output_type, self.expected_output = expected_output, expected_output.model_json_schema()
        if artifacts_path is not None and not self.wait_for_completion:
            raise AixplainInputError(
                "artifacts_path and wait_for_completion=False: choose one, as only a finished run has artifacts"
            )

    def run_input(self) -> AgentInput:
        """Return the input of the run."""
        return AgentInput(
            self.agent_id,
            self.query,
            self.variables,
            self.session_id,
            self.attachments,
            self.tools,
            self.output_format,
            self.output_type or self.expected_output,
            self.max_tokens,
            self.max_time,
            self.budget,
        )

    def check_input(self, *names: str) -> None:
        """Check the rendered arguments, and that Airflow can open ``artifacts_path``."""
        super().check_input(*names, "artifacts_path")
        if self.artifacts_path is not None:
            from airflow_provider_aixplain.operators.artifacts import open_folder

            open_folder(self.artifacts_path)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return the result of the run, or raise its error, as for a model.

        The answer is checked against its schema, and artifacts are stored, before the result counts as delivered.

        :raises AixplainRunFailed: also if the answer does not match ``expected_output``.
        """
        if event["status"] == "success" and self.output_type is not None:
            answer = self.asset.result(event["response"])["output"]
            kind = self.output_type
            try:
                text = _CODE_BLOCK.sub(r"\1", answer) if isinstance(answer, str) else None
                instance = kind.model_validate(answer) if text is None else kind.model_validate_json(text)
                self._output = instance.model_dump(mode="json")
            except ValueError as error:
                message = f"the answer does not match expected_output: {error}"
                event = {**event, "status": "failed", "message": to_printable(message)}
        if event["status"] == "success" and self.artifacts_path is not None:
            from airflow_provider_aixplain.operators.artifacts import store_artifacts

            event = store_artifacts(self.hook, self.artifacts_path, event, self.run_name, self.log)
        return super().execute_complete(context, event)

    def make_result(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the task returns, with the validated output."""
        result = super().make_result(response)
        return result if self._output is None else {**result, "output": self._output}
