"""The emulator's models. Each takes a run's payload and returns its output; what it raises is the run's failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

NEEDS_EXTRA = "needs pip install 'airflow-provider-aixplain[emulator]'"
CREDITS_PER_CHARACTER = 0.00002


class ModelError(Exception):
    """A model's own failure, told to the client as the platform would."""


@dataclass(frozen=True)
class Output:
    """What a model gives back.

    :param data: the main output.
    :param details: further output.
    """

    data: Any
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EmulatedModel:
    """A model of the emulator's catalogue.

    :param name: its name for people.
    :param function: the id of what it does.
    :param run: takes a run's payload and returns its output.
    :param takes_text: whether it needs a text.
    :param supports_streaming: whether it can stream its text.
    :param is_own: whether the account has made it by fine-tuning, and may delete it.
    """

    name: str
    function: str
    run: Callable[[dict[str, Any]], Output]
    takes_text: bool = True
    supports_streaming: bool = False
    is_own: bool = False

    def record(self, model_id: str) -> dict[str, Any]:
        """Return what the catalogue tells of the model."""
        return {
            "id": model_id,
            "name": self.name,
            "description": f"{self.run.__doc__}",
            "supplier": {"id": 1, "name": "aixplain", "code": "aixplain"},
            "function": {"id": self.function, "name": self.function.replace("-", " ").title()},
            "functionType": "ai",
            "version": {"id": "1.0", "name": "1.0"},
            "status": "onboarded",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "pricing": {"price": CREDITS_PER_CHARACTER, "unitType": "CHARACTER"},
            "supportsStreaming": self.supports_streaming,
            "params": [
                *([_parameter("text", "text", required=True)] if self.takes_text else []),
                _parameter("delay", "number"),
            ],
        }


def text_of(payload: dict[str, Any]) -> str:
    """Return the text that a payload holds as ``data`` or ``text``."""
    text = payload.get("data", payload.get("text"))
    if not isinstance(text, str):
        raise ModelError("this model needs a text as data")
    return text


def sentiment(payload: dict[str, Any]) -> Output:
    """English text -> ``positive``, ``neutral`` or ``negative``, by the lexicon of VADER."""
    scores = _vader().polarity_scores(text_of(payload))
    compound = scores["compound"]
    label = "positive" if compound >= 0.05 else "negative" if compound <= -0.05 else "neutral"
    return Output(label, scores)


def language(payload: dict[str, Any]) -> Output:
    """Text -> the code of its language (ISO 639-1), by the model of py3langid."""
    try:
        import py3langid
    except ImportError:
        raise ModelError(f"model language {NEEDS_EXTRA}") from None
    code, score = py3langid.classify(text_of(payload))
    return Output(str(code), {"log_probability": round(float(score), 3)})


def echo(payload: dict[str, Any]) -> Output:
    """Anything -> itself."""
    return Output(payload.get("data", payload))


def fail(payload: dict[str, Any]) -> Output:
    """Always fails, after its time."""
    raise ModelError("this model always fails")


MODELS = {
    "sentiment": EmulatedModel("VADER", "sentiment-analysis", sentiment),
    "language": EmulatedModel("py3langid", "language-identification", language),
    "echo": EmulatedModel("Echo", "paraphrasing", echo, takes_text=False, supports_streaming=True),
    "fail": EmulatedModel("Failure", "fact-checking", fail, takes_text=False, supports_streaming=True),
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
