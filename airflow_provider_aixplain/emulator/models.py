"""The emulator's models. Each takes a run's payload and returns its output; what it raises is the run's failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

NEEDS_EXTRA = "needs pip install 'airflow-provider-aixplain[emulator]'"


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


MODELS: dict[str, Callable[[dict[str, Any]], Output]] = {
    "sentiment": sentiment,
    "language": language,
    "echo": echo,
    "fail": fail,
}


@cache
def _vader() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise ModelError(f"model sentiment {NEEDS_EXTRA}") from None
    return SentimentIntensityAnalyzer()
