"""The emulator's models. Each accepts the payload of a run, and returns its output or raises ``ModelError``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

NEEDS_EXTRA = "needs pip install 'airflow-provider-aixplain[emulator]'"
CREDITS_PER_CHARACTER = 0.00002


class ModelError(Exception):
    """Fails the run; its message becomes the run's error message."""


@dataclass(frozen=True)
class Output:
    """The output of a run.

    :param data: the main output.
    :param details: further output.
    """

    data: Any
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EmulatedModel:
    """A model of the emulator's catalogue.

    :param name: display name.
    :param function: id of its function.
    :param run: accepts the payload of a run and returns its output. Its docstring describes the model to users.
    :param needs_text: whether its parameter ``text`` is required.
    :param supports_streaming: whether it can stream its output.
    :param is_own: whether the account created it by fine-tuning, so that the account may delete it.
    """

    name: str
    function: str
    run: Callable[[dict[str, Any]], Output]
    needs_text: bool = True
    supports_streaming: bool = False
    is_own: bool = False

    price: ClassVar[str] = f"{CREDITS_PER_CHARACTER:.5f} credits per character of the payload as JSON"

    def record(self, model_id: str) -> dict[str, Any]:
        """Return the catalogue's record of the model."""
        return {
            "id": model_id,
            "name": self.name,
            "description": str(self.run.__doc__),
            "supplier": {"id": 1, "name": "aixplain", "code": "aixplain"},
            "function": {"id": self.function, "name": self.function.replace("-", " ").title()},
            "functionType": "ai",
            "version": {"id": "1.0", "name": "1.0"},
            "status": "onboarded",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "pricing": {"price": CREDITS_PER_CHARACTER, "unitType": "CHARACTER"},
            "supportsStreaming": self.supports_streaming,
            "params": [
                *([_parameter("text", "text", required=True)] if self.needs_text else []),
                _parameter("delay", "number"),
            ],
        }


def credits_for(characters: int) -> float:
    """Return the price of a call whose payload has this many characters as JSON."""
    return round(characters * CREDITS_PER_CHARACTER, 6)


def text_of(payload: dict[str, Any]) -> str:
    """Return the string in a payload's ``data`` or ``text``."""
    text = payload.get("data", payload.get("text"))
    if not isinstance(text, str):
        raise ModelError("this model needs a string as data")
    return text


def sentiment(payload: dict[str, Any]) -> Output:
    """English text to positive, neutral or negative, by VADER's lexicon."""
    scores = _vader().polarity_scores(text_of(payload))
    compound = scores["compound"]
    label = "positive" if compound >= 0.05 else "negative" if compound <= -0.05 else "neutral"
    return Output(label, scores)


def language(payload: dict[str, Any]) -> Output:
    """Text to its language code (ISO 639-1), by py3langid's model."""
    try:
        import py3langid
    except ImportError:
        raise ModelError(f"model language {NEEDS_EXTRA}") from None
    code, score = py3langid.classify(text_of(payload))
    return Output(str(code), {"log_probability": round(float(score), 3)})


def echo(payload: dict[str, Any]) -> Output:
    """Returns its input."""
    return Output(payload.get("data", payload))


def fail(payload: dict[str, Any]) -> Output:
    """Always fails, when its time has passed."""
    raise ModelError("this model always fails")


MODELS = {
    "sentiment": EmulatedModel("VADER", "sentiment-analysis", sentiment),
    "language": EmulatedModel("py3langid", "language-identification", language),
    "echo": EmulatedModel("Echo", "paraphrasing", echo, needs_text=False, supports_streaming=True),
    "fail": EmulatedModel("Failure", "fact-checking", fail, needs_text=False, supports_streaming=True),
    "tuned": EmulatedModel("VADER, tuned", "sentiment-analysis", sentiment, is_own=True),
}


def _parameter(name: str, data_type: str, *, required: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "required": required,
        "isFixed": False,
        "dataType": data_type,
        "dataSubType": data_type,
        "multipleValues": False,
        "values": [],
        "defaultValues": [],
        "availableOptions": [],
    }


@cache
def _vader() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise ModelError(f"model sentiment {NEEDS_EXTRA}") from None
    return SentimentIntensityAnalyzer()
