"""The emulator's agents. Each plans calls of the emulator's models, and answers from what the models return."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, ClassVar

from airflow_provider_aixplain.emulator.models import MODELS, ModelError, credits_for
from airflow_provider_aixplain.emulator.runs import Run

Steps = list[dict[str, Any]]

VARIABLES = {"steps": 1, "steps_bytes": 0, "progress_bytes": 0, "link_seconds": 24 * 3600}
"""Variables of a query that are numbers, with their defaults."""

MAX_NUMBER = 100_000_000
ENDINGS = {"success": "SUCCESS", "failed": "FAILED", "aborted": "ABORTED"}
"""Status of the run by the variable ``outcome``."""

PADDING_STEP = 10_000
"""Bytes of one of the steps that make an answer large."""


@dataclass(frozen=True)
class EmulatedAgent:
    """An agent of the emulator's catalogue.

    :param name: display name.
    :param plan: accepts the query and the texts of attachments, and returns the steps to make or raises ``ModelError``.
        Its docstring describes the agent to users.
    :param answer: accepts the finished steps, and those of the conversation's earlier runs, and returns the answer.
    :param models: ids of the models that it calls.
    :param members: ids of the agents of a team.
    """

    name: str
    plan: Callable[[dict[str, Any], list[str]], Steps]
    answer: Callable[[Steps, Steps], Any]
    models: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    price: ClassVar[str] = "the price of its calls of models"

    def record(self, agent_id: str) -> dict[str, Any]:
        """Return the catalogue's record of the agent."""
        return {
            "id": agent_id,
            "name": self.name,
            "description": str(self.plan.__doc__),
            "status": "onboarded",
            "tools": [{"id": model_id, "name": MODELS[model_id].name, "type": "model"} for model_id in self.models],
            "agents": [{"id": member, "inspectors": []} for member in self.members],
        }


def rate(query: dict[str, Any], attachments: list[str]) -> Steps:
    """Counts reviews, one a line or a JSON list of strings, by language and sentiment. As JSON: an object of counts."""
    reviews = [review for text in (query.get("input", ""), *attachments) for review in _reviews(text)]
    if not reviews:
        raise ModelError("neither the input nor an attachment has a review")
    tasks = {"language": "detect the language of a review", "sentiment": "rate the sentiment of a review"}
    return [_step("review-analyst", model, review, task) for review in reviews for model, task in tasks.items()]


def count(steps: Steps, earlier: Steps) -> dict[str, Any]:
    """Return the number of reviews, and how many have each sentiment and language."""
    reviews = rated_reviews(steps)
    sentiments = Counter(review["sentiment"] for review in reviews)
    counts = {
        "reviews": len(reviews),
        **{sentiment: sentiments[sentiment] for sentiment in ("positive", "neutral", "negative")},
        "languages": dict(Counter(review["language"] for review in reviews)),
    }
    return {**counts, "earlier": count(earlier, [])} if rated_reviews(earlier) else counts


def repeat(query: dict[str, Any], attachments: list[str]) -> Steps:
    """Answers its input, and repeats it in as many steps as the variable steps states, by default one."""
    data = query.get("input", query)
    text = "\n".join((as_text(data), *attachments)) if attachments else data
    return [_step("echo-agent", "echo", text, "repeat the input")] * max(1, variable(query, "steps"))


def rate_and_repeat(query: dict[str, Any], attachments: list[str]) -> Steps:
    """A team of review-analyst and echo-agent, which work one after the other on the same query."""
    return rate(query, attachments) + repeat(query, attachments)


def answers_by_member(steps: Steps, earlier: Steps) -> dict[str, Any]:
    """Return the answer of each member of a team that has finished a step."""
    done: dict[str, Steps] = {}
    for step in steps:
        done.setdefault(step["agent"]["id"], []).append(step)
    return {member: AGENTS[member].answer(own, earlier) for member, own in done.items()}


AGENTS = {
    "review-analyst": EmulatedAgent("Review analyst", rate, count, ("language", "sentiment")),
    "echo-agent": EmulatedAgent("Echo agent", repeat, lambda steps, _: steps[-1]["output"], ("echo",)),
    "review-team": EmulatedAgent(
        "Review team", rate_and_repeat, answers_by_member, members=("review-analyst", "echo-agent")
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What an agent did in a run.

    :param plan: the planned steps, all of which take the same time.
    :param steps: the finished ones.
    :param output: its answer.
    :param error: why it failed.
    :param exceeded: the limit of the budget that ended the run before its last step.
    """

    plan: Steps
    steps: Steps
    output: str | None = None
    error: str | None = None
    exceeded: str | None = None


def work(agent_id: str, payload: dict[str, Any], seconds: float, attachments: list[str], earlier: Steps) -> Outcome:
    """Call the models that an agent plans, until one fails or the budget is exceeded, and answer.

    :param payload: the submission.
    :param seconds: the time that all planned steps take.
    :param attachments: the texts of the attached files.
    :param earlier: the steps of the conversation's earlier runs.
    """
    agent, parameters = AGENTS[agent_id], payload.get("executionParams") or {}
    try:
        plan = agent.plan(query_of(payload), attachments)
    except ModelError as cause:
        return Outcome([], [], error=str(cause))
    caps = {name: cap for name, cap in (parameters.get("budget") or {}).items() if cap is not None}
    step_seconds = seconds / len(plan)
    steps: Steps = []
    credits, exceeded = 0.0, None
    for number, planned in enumerate(plan, 1):
        used = {"maxCost": credits, "maxDurationSeconds": step_seconds * len(steps), "maxIterations": number}
        exceeded = next((f"{name} {caps[name]}" for name in used if used[name] > caps.get(name, math.inf)), None)
        if exceeded:
            break
        steps.append(_finish(planned, number, step_seconds))
        credits += steps[-1]["used_credits"]
        if error := steps[-1]["error"]:
            return Outcome(plan, steps, error=error["message"])
    answer, is_json = agent.answer(steps, earlier) if steps else "", parameters.get("outputFormat") == "json"
    output = as_json(answer, parameters["expectedOutput"]) if is_json else as_text(answer)
    return Outcome(plan, steps, output, exceeded=exceeded)


@dataclass
class AgentRun(Run):
    """One run of an agent.

    :param origin: the emulator's origin in the submission's URL, for the links to artifacts.
    """

    origin: str = ""

    @property
    def run_time(self) -> float:
        """The seconds that the run takes: those of its finished steps."""
        outcome = self.output.result() if self.output.done() else None
        return self.seconds * len(outcome.steps) / len(outcome.plan) if outcome and outcome.plan else self.seconds

    @property
    def link_expires_at(self) -> float:
        """When the link to its artifact expires."""
        return self.finishes_at + variable(query_of(self.payload), "link_seconds")

    def response(self) -> dict[str, Any]:
        """Return the response to a poll at this moment."""
        query, ids = query_of(self.payload), {"requestId": self.id, "sessionId": self.session_id}
        if not self.is_finished:
            return {"completed": False, "status": "IN_PROGRESS", **ids, "data": {"steps": self._steps_so_far()}}
        outcome: Outcome = self.output.result()
        status = "FAILED" if outcome.error else ENDINGS[query.get("outcome", "success")]
        credits = round(sum(step["used_credits"] for step in outcome.steps), 6)
        response = {"completed": True, "status": status, "usedCredits": credits, "runTime": self.run_time, **ids}
        data = {
            "input": self.payload.get("query"),
            "output": outcome.output if status == "SUCCESS" else None,
            "steps": outcome.steps + _padding(variable(query, "steps_bytes")),
            "session_id": self.session_id,
            "executionStats": {"credits": credits, "runtime": self.run_time, "api_calls": len(outcome.steps)},
            "critiques": "",
            "artifacts": self._artifacts(),
            "diagnosticErrorCodes": ["TOOL_FAILED"] if outcome.error and outcome.steps else [],
        }
        if outcome.exceeded:
            # By the documentation of its package, the platform reports a run that a budget has ended as a success with
            # this status. Reason, source, and an answer from the finished steps are the emulator's choice.
            done = f"after {len(outcome.steps)} of {len(outcome.plan)} steps"
            data["governanceStatus"], data["governanceSource"] = "BLOCKED_BY_BUDGET", "budget"
            data["governanceReason"] = f"the budget of {outcome.exceeded} ended the run {done}"
        if status != "SUCCESS":
            reason = outcome.error or f"the run has ended as {status}, as its query requests"
            response |= {"error": reason, "errorDetails": {"code": "EMULATED_FAILURE", "message": reason}}
        return {**response, "data": data}

    def artifact(self) -> str:
        """Return the rated reviews as CSV, or an empty string if there are none."""
        rows, text = rated_reviews(self.output.result().steps), io.StringIO(newline="")
        if rows:
            writer = csv.DictWriter(text, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return text.getvalue()

    def _artifacts(self) -> list[dict[str, Any]]:
        """Return the entry of the artifact. Its link needs no key, so it has the run's id as a signature."""
        entry = {
            "id": f"{self.id}-reviews",
            "name": "reviews.csv",
            "mime_type": "text/csv",
            "source": "tool_output",
            "url": f"{self.origin}/emulator/artifacts/reviews.csv?signature={self.id}",
            "url_expires_at": datetime.fromtimestamp(self.link_expires_at, timezone.utc).isoformat(),
            "byte_size": len(self.artifact().encode()),
        }
        return [entry] if entry["byte_size"] else []

    def _steps_so_far(self) -> Steps:
        """Return the steps that are finished by the time that has passed, and the one that is not."""
        if not self.output.done():
            return []
        outcome: Outcome = self.output.result()
        elapsed = time.time() - self.submitted_at
        done = int(len(outcome.plan) * elapsed / self.seconds)
        padding = variable(query_of(self.payload), "progress_bytes") * min(1.0, elapsed / self.run_time)
        current = [{**step, "id": f"step-{done + 1}"} for step in outcome.plan[done : done + 1]]
        return [*outcome.steps[:done], *current, *_padding(int(padding))]


def query_of(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the query of a submission as an object."""
    query = payload.get("query") or ""
    return query if isinstance(query, dict) else {"input": query}


def variable(query: dict[str, Any], name: str) -> int:
    """Return a variable that is a number."""
    return int(query.get(name, VARIABLES[name]))


def check(payload: dict[str, Any]) -> None:
    """Check a submission.

    :raises ValueError: if it is invalid; the message names the field.
    """
    query, parameters = query_of(payload), payload.get("executionParams") or {}
    attachments = payload.get("attachments") or []
    if not isinstance(parameters, dict) or not isinstance(budget := parameters.get("budget") or {}, dict):
        raise ValueError("executionParams or its budget is not an object")
    if not isinstance(attachments, list):
        raise ValueError("attachments is not a list")
    text = query.get("input", query)
    if not attachments and not (text.strip() if isinstance(text, str) else text):
        raise ValueError("query is empty")
    if query.get("outcome", "success") not in list(ENDINGS):
        raise ValueError(f"query.outcome is none of {', '.join(ENDINGS)}")
    numbers = {f"query.{name}": value for name, value in query.items() if name in VARIABLES}
    numbers |= {f"executionParams.budget.{name}": cap for name, cap in budget.items() if cap is not None}
    for name, value in numbers.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= MAX_NUMBER:
            raise ValueError(f"{name} is not a number from 0 to {MAX_NUMBER}")
    if parameters.get("outputFormat") == "json" and _from_json(parameters.get("expectedOutput")) is None:
        raise ValueError("executionParams.expectedOutput is not JSON, which outputFormat json needs")


def rated_reviews(steps: Steps) -> Steps:
    """Return the reviews that review-analyst has rated in these steps, each with its language and sentiment."""
    done = [step for step in steps if step["agent"]["id"] == "review-analyst" and not step["error"]]
    pairs = zip(done[::2], done[1::2], strict=False)  # a run that ended early may lack the last rating
    return [{"review": one["input"], "language": one["output"], "sentiment": two["output"]} for one, two in pairs]


def as_text(answer: Any) -> str:
    """Return an answer as text: an object as its names and values."""
    if not isinstance(answer, dict):
        return answer if isinstance(answer, str) else json.dumps(answer)
    values = {
        name: f"({as_text(value)})" if isinstance(value, dict) else as_text(value) for name, value in answer.items()
    }
    return ", ".join(f"{name} {value}" for name, value in values.items())


def as_json(answer: Any, expected: Any) -> str:
    """Return an answer as JSON text: of an object the properties of the expected schema, or the keys of the example.

    A text is returned unchanged, so that echo-agent can answer anything, also what is no JSON.
    """
    schema = _from_json(expected)
    if isinstance(answer, dict) and isinstance(schema, dict):
        properties = schema.get("properties")
        answer = {name: answer.get(name) for name in (properties if isinstance(properties, dict) else schema)}
    return answer if isinstance(answer, str) else json.dumps(answer)


def _step(agent_id: str, model_id: str, data: Any, task: str) -> dict[str, Any]:
    """Return a planned step: a call of a model."""
    return {
        "agent": {"id": agent_id, "name": AGENTS[agent_id].name},
        "unit": {"id": model_id, "name": MODELS[model_id].name, "type": "tool"},
        "action": model_id,
        "task": task,
        "input": data,
    }


def _finish(planned: dict[str, Any], number: int, seconds: float) -> dict[str, Any]:
    """Call the model of a planned step, and return the finished step."""
    call = {"data": planned["input"]}
    output: Any
    try:
        output, error = MODELS[planned["action"]].run(call).data, None
    except ModelError as cause:
        output, error = f"ERROR: {cause}", {"code": "TOOL_FAILED", "message": str(cause)}
    price = credits_for(len(json.dumps(call)))
    result = {"output": output, "error": error, "used_credits": price, "api_calls": 1, "run_time": seconds}
    return {"id": f"step-{number}", **planned, **result}


def _padding(size: int) -> Steps:
    """Return steps with thoughts of this many bytes in total."""
    sizes = {start: min(PADDING_STEP, size - start) for start in range(0, size, PADDING_STEP)}
    return [{"id": f"padding-{start}", "thought": "." * count} for start, count in sizes.items()]


def _reviews(text: Any) -> list[str]:
    """Return the reviews in a text: its lines, or the strings of a list, also as JSON."""
    reviews = _from_json(text)
    if not isinstance(reviews, list):
        reviews = text.splitlines() if isinstance(text, str) else [text]
    if not all(isinstance(review, str) for review in reviews):
        raise ModelError("the input is neither a text nor a list of strings")
    return [review.strip() for review in reviews if review.strip()]


def _from_json(text: Any) -> Any:
    """Return the value of a JSON text, None if it is not one, or the value itself if it is no text."""
    if not isinstance(text, str):
        return text
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    return None
