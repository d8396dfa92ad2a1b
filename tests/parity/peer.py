"""Calls the public package ``aixplain``, in its own environment.

Each line of input is a call, ``{"call": name, "arguments": {...}}``, and each line of output its outcome,
``{"returns": value}`` or ``{"raises": message}``. Endpoints and key are read from the environment.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from aixplain import Aixplain
from aixplain.factories import FileFactory, ModelFactory
from aixplain.modules.agent import Agent
from aixplain.modules.model import Model
from aixplain.modules.model.model_parameters import ModelParameters
from aixplain.utils.file_utils import _build_s3_link_from_presigned_url

from tests.parity.plain import plain, revive


def model(arguments: dict[str, Any]) -> Model:
    return Model(id=arguments.pop("model_id", "any"), supports_streaming=True)


def agent_of(arguments: dict[str, Any]) -> Any:
    """Return an agent of ``aixplain.v2``, with the budget and the parameters of tools in a run's arguments."""
    agent = Aixplain().Agent.get(arguments.pop("agent_id"))
    agent.budget = arguments.pop("budget", None)
    tools = {tool.id: tool for tool in agent.tools}
    for given in arguments.pop("tools", ()):
        for name, value in given["parameters"].items():
            tools[given["id"]].inputs[name] = value
    return agent


def submit_agent(arguments: dict[str, Any], call: str = "run_async", **more: Any) -> dict[str, Any]:
    """Start a run of an agent with ``aixplain.v2``.

    :param arguments: by the names of this project.
    """
    agent = agent_of(arguments)
    settings = ("output_format", "expected_output", "max_tokens", "max_time")
    execution_params = {name: arguments.pop(name) for name in settings if name in arguments}
    renamed = {"sessionId": arguments.pop("session_id")} if "session_id" in arguments else {}
    return result_of(getattr(agent, call)(**arguments, **renamed, **more, execution_params=execution_params))


def run_agent_in_session(arguments: dict[str, Any]) -> dict[str, Any]:
    """Run an agent within a session, as ``aixplain.v2`` does it since it has sessions."""
    return submit_agent(arguments, "run", session=arguments.pop("session_id"))


def poll_agent(arguments: dict[str, Any]) -> dict[str, Any]:
    return result_of(Aixplain().Agent(id="a", name="A").poll(**arguments))


def result_of(result: Any) -> dict[str, Any]:
    """Return the result of an agent's run with the names of this project."""
    data = result.data
    fields = data if isinstance(data, dict) else getattr(data, "__dict__", {"output": data})
    names = ("status", "completed", "error_message", "url", "request_id", "used_credits", "run_time")
    return {
        **{name: getattr(result, name) for name in names},
        "output": fields.get("output"),
        "session_id": result.session_id or fields.get("session_id"),
        "artifacts": [artifact.url for artifact in result.artifacts],
    }


def run_agent(arguments: dict[str, Any]) -> dict[str, Any]:
    """Run an agent with ``aixplain.v2``, and return its result with what was printed about its progress."""
    agent = agent_of(arguments)
    progress = {"progress_format": "logs", "wait_time": 0.2}
    with redirect_stdout(io.StringIO()) as printed:
        if arguments.pop("is_async", False):
            result = agent.sync_poll(agent.run_async(**arguments).url, **progress)
        else:
            result = agent.run(**arguments, **progress)
    fields = {name: value for name, value in vars(result).items() if not name.startswith("_")}
    return {**fields, "printed": printed.getvalue()}


def run_legacy_agent(arguments: dict[str, Any]) -> dict[str, Any]:
    agent = Agent(id=arguments.pop("agent_id"), name="Any", description="")
    agent.url = f"{os.environ['BACKEND_URL']}/sdk/agents/{agent.id}/run"  # as its factory does
    response = agent.run(**arguments)
    return {"status": response.status, "output": response.data.output, "session_id": response.data.session_id}


def parameters(arguments: dict[str, Any]) -> dict[str, Any]:
    declared = ModelParameters(arguments["declared"])
    for name, value in arguments["values"].items():
        setattr(declared, name, value)
    return {"dict": declared.to_dict(), "list": declared.to_list()}


CALLS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "run_async": lambda a: model(a).run_async(**a),
    "run": lambda a: model(a).run(**a),
    "run_stream": lambda a: list(model(a).run_stream(**a)),
    "poll": lambda a: model(a).poll(**a),
    "sync_poll": lambda a: model(a).sync_poll(**a),
    "check_finetune_status": lambda a: model(a).check_finetune_status(**a),
    "delete": lambda a: model(a).delete(),
    "submit_agent": submit_agent,
    "run_agent_in_session": run_agent_in_session,
    "poll_agent": poll_agent,
    "run_agent": run_agent,
    "run_legacy_agent": run_legacy_agent,
    "get_model": lambda a: ModelFactory.get(**a),
    "upload": lambda a: FileFactory.upload(**a),
    "construct": lambda a: Model(**a),
    "run_declared": lambda a: Model(id=a["model_id"], model_params=a["declared"]).run_async(a["data"]),
    "repr": lambda a: repr(Model(**a)),
    "to_dict": lambda a: Model(**a).to_dict(),
    "from_dict": lambda a: Model.from_dict(a["data"]),
    "parameters": parameters,
    "link": lambda a: _build_s3_link_from_presigned_url(a["url"], a["key"]),
}


def main() -> None:
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        try:
            outcome = {"returns": plain(CALLS[request["call"]](revive(request["arguments"])))}
        except Exception as error:
            outcome = {"raises": f"{type(error).__name__}: {error}"}
        print(json.dumps(outcome), file=out, flush=True)


if __name__ == "__main__":
    main()
