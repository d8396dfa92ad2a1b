"""Models as the platform's catalogue tells of them: their records, their states and the parameters they declare."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.values import parse_number, parse_time, to_text
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse, read_object, unreadable


class AssetStatus(str, Enum):
    """The states of an asset, such as a model or a fine-tuning."""

    DRAFT = "draft"
    HIDDEN = "hidden"
    SCHEDULED = "scheduled"
    ONBOARDING = "onboarding"
    ONBOARDED = "onboarded"
    PENDING = "pending"
    FAILED = "failed"
    TRAINING = "training"
    REJECTED = "rejected"
    ENABLING = "enabling"
    DELETING = "deleting"
    DISABLED = "disabled"
    DELETED = "deleted"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELING = "canceling"
    CANCELED = "canceled"
    DEPRECATED_DRAFT = "deprecated_draft"


class FunctionType(str, Enum):
    """The kinds of functions that a model can have."""

    AI = "ai"
    SEGMENTOR = "segmentor"
    RECONSTRUCTOR = "reconstructor"
    UTILITY = "utility"
    METRIC = "metric"
    SEARCH = "search"
    INTEGRATION = "connector"
    CONNECTION = "connection"
    MCP_CONNECTION = "mcpconnection"
    MCPSERVER = "mcpserver"


_Word = TypeVar("_Word", AssetStatus, FunctionType)


def asset_status(word: object) -> AssetStatus | str | None:
    """Return the state that a word of the platform means. An unknown word stays as it is; None is none."""
    return _known(AssetStatus, word)


def function_type(word: object) -> FunctionType | str | None:
    """Return the kind of function that a word of the platform means. An unknown word stays as it is; None is none."""
    return _known(FunctionType, word)


def _known(words: type[_Word], word: object) -> _Word | str | None:
    try:
        return words(word)
    except ValueError:
        return word if isinstance(word, str) and word else None


@dataclass
class Parameter:
    """A parameter that a model declares.

    :param name: its name in ``parameters``.
    :param required: whether a run needs it.
    :param value: the value that was set on :class:`ModelParameters`; a run does not send it.
    :param is_fixed: whether the model's makers have fixed its value.
    :param values: values that are preset, or supported.
    :param default_values: what a run uses that does not name it.
    :param available_options: the values to choose from.
    :param data_type: such as ``text``, ``number``, ``boolean``, ``json``, ``array``.
    :param data_sub_type: what a text holds, such as ``json`` or ``number``.
    :param multiple_values: whether it takes a list of values.
    """

    name: str
    required: bool = False
    value: Any = None
    is_fixed: bool = False
    values: list[Any] = field(default_factory=list)
    default_values: list[Any] = field(default_factory=list)
    available_options: list[Any] = field(default_factory=list)
    data_type: str | None = None
    data_sub_type: str | None = None
    multiple_values: bool = False

    def takes(self, value: Any) -> bool:
        """Whether a JSON value has the declared type.

        Null has any, and an unknown type takes anything. A text that holds a number or a truth value is one: templates
        give texts, and a run's ``data`` makes texts of both.
        """
        several = self.multiple_values and isinstance(value, list)
        return self._takes_one(value) or (several and all(self._takes_one(item) for item in value))

    def _takes_one(self, value: Any) -> bool:
        types = _TYPES.get(f"{self.data_type}/{self.data_sub_type}") or _TYPES.get(f"{self.data_type}")
        if types is None or value is None:
            return True
        if isinstance(value, str) and self.data_type == "number":
            return parse_number(value, sys.float_info.max) is not None
        if isinstance(value, str) and self.data_type == "boolean":
            return value.lower() in ("true", "false")
        return bool in types if isinstance(value, bool) else isinstance(value, types)


_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "text/json": (dict, list, str),
    "text/number": (int, float, str),
    "number": (int, float),
    "boolean": (bool,),
    "json": (dict, list, str),
    "array": (list,),
}


class ModelParameters:
    """The parameters that a model declares, each an attribute that holds the value set for it, None at first.

    A run does not send these values, as it does not in the platform's own client: it sends its ``parameters``.

    :param input_params: from names to declarations with the platform's keys ``required``, ``isFixed``, ``values``,
        ``defaultValues``, ``availableOptions``, ``dataType``, ``dataSubType`` and ``multipleValues``, all optional.
    """

    parameters: dict[str, Parameter]

    def __init__(self, input_params: Mapping[str, Mapping[str, Any]]) -> None:
        if not isinstance(input_params, Mapping):
            raise InvalidInput(
                f"model_params is a {type(input_params).__name__}: give a dict from names to declarations"
            )
        declared = {str(name): _declaration(str(name), told) for name, told in input_params.items()}
        object.__setattr__(self, "parameters", declared)

    def get_parameter(self, name: str) -> Parameter | None:
        """Return the declaration of a parameter, or None if there is none of that name."""
        return self.parameters.get(name)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the declarations with the platform's keys, and the values, by name."""
        return {
            p.name: {"name": p.name, "value": p.value, **{key: getattr(p, name) for name, (key, _) in _KEYS.items()}}
            for p in self.parameters.values()
        }

    def to_list(self) -> list[dict[str, Any]]:
        """Return the names and values of the parameters that have one."""
        return [{"name": p.name, "value": p.value} for p in self.parameters.values() if p.value is not None]

    def check(self, payload: Mapping[str, Any]) -> None:
        """Return if a run with this payload has all that the model asks for, in the types that it declares.

        The input itself usually travels as ``data``, whatever the model calls it. So ``data`` stands for one parameter
        that is not named, and for all of them if it is an object or a list.

        :param payload: the body of the run.
        :raises InvalidInput: naming every parameter that is missing or has a wrong type.
        """
        problems = [
            f"{name} is {payload[name]!r:.100}, and the model takes {parameter.data_type}"
            for name, parameter in self.parameters.items()
            if name in payload and not parameter.takes(payload[name])
        ]
        missing = [
            name
            for name, parameter in self.parameters.items()
            if parameter.required
            and payload.get(name) is None
            and not (parameter.is_fixed or parameter.values or parameter.default_values)
        ]
        data = None if "data" in self.parameters else payload.get("data")
        if len(missing) > 1 or data is None:
            hint = ", of which data can stand for one" if data is not None else ""
            if missing and not isinstance(data, (dict, list)):
                names = ", ".join(missing)
                problems.append(f"the model requires {names}{hint}: give it in parameters, or data as an object")
        if problems:
            raise InvalidInput("; ".join(problems))

    def __getattr__(self, name: str) -> Any:
        """Return the value set for a parameter.

        :raises AttributeError: if the model declares none of that name.
        """
        return self._declared(name).value

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the value of a parameter.

        :raises AttributeError: if the model declares none of that name.
        """
        self._declared(name).value = value

    def __str__(self) -> str:
        """Return a line for each parameter."""
        lines = []
        for p in self.parameters.values():
            options = [option.get("value") if isinstance(option, dict) else option for option in p.available_options]
            marks = ["required" if p.required else "optional", *(["fixed"] if p.is_fixed else [])]
            marks += [str(p.data_type)] * bool(p.data_type) + [f"one of {options}"] * bool(options)
            lines.append(f"  - {p.name}: {'not set' if p.value is None else p.value} ({', '.join(marks)})")
        return "\n".join(["Parameters:", *lines]) if lines else "No parameters declared"

    def _declared(self, name: str) -> Parameter:
        # By way of __dict__: a copy is asked for attributes before it has any.
        declared = self.__dict__.get("parameters", {})
        if name not in declared:
            raise AttributeError(
                f"the model declares no parameter {name!r}; it declares {', '.join(declared) or 'none'}"
            )
        parameter: Parameter = declared[name]
        return parameter


_KEYS: dict[str, tuple[str, type]] = {
    "required": ("required", bool),
    "is_fixed": ("isFixed", bool),
    "values": ("values", list),
    "default_values": ("defaultValues", list),
    "available_options": ("availableOptions", list),
    "data_type": ("dataType", str),
    "data_sub_type": ("dataSubType", str),
    "multiple_values": ("multipleValues", bool),
}
"""The platform's spelling of each attribute of a declaration, and its type; what has another counts as not said."""


def _declaration(name: str, told: Any) -> Parameter:
    told = told if isinstance(told, Mapping) else {}
    said = {attribute: told[key] for attribute, (key, kind) in _KEYS.items() if isinstance(told.get(key), kind)}
    for attribute in ("values", "default_values"):
        alone = told.get(_KEYS[attribute][0])
        if attribute not in said and alone not in (None, "", {}):
            said[attribute] = [alone]
    return Parameter(name, value=told.get("value"), **said)


def read_model(outcome: Answer | NoResponse) -> dict[str, Any]:
    """Return a model's record as the arguments of :class:`~airflow_provider_aixplain.model.Model`.

    What the record says beyond them is kept by its own name, but for a key. A record without an id is none; whatever
    else is missing or odd leaves the argument's default, and the state ``draft``.

    :param outcome: what came back for the request.
    :raises RequestFailed: if the platform refuses, or what it answers is no record.
    """
    record = read_object(outcome, "model")
    if not isinstance(record.get("id"), str) or not record["id"]:
        raise unreadable("model", "has no id", record)
    version, params = record.get("version"), record.get("params")
    declared = {
        param["name"]: param
        for param in (params if isinstance(params, list) else [])
        if isinstance(param, dict) and isinstance(param.get("name"), str)
    }
    fields = {
        "id": record["id"],
        "name": to_text(record.get("name")),
        "description": to_text(record.get("description")),
        "supplier": record.get("supplier"),
        "version": version.get("id") if isinstance(version, dict) else version,
        "function": record.get("function"),
        "is_subscribed": "subscription" in record,
        "cost": record.get("pricing"),
        "created_at": parse_time(record.get("createdAt")),
        "input_params": declared,
        "model_params": declared,
        "supports_streaming": record.get("supportsStreaming") is True,
        "status": record.get("status") or AssetStatus.DRAFT,
        "function_type": record.get("functionType") or FunctionType.AI,
    }
    told = {"pricing", "params", "supportsStreaming", "functionType", "self", "api_key", *fields}
    if fields["created_at"]:
        told.add("createdAt")
    rest = {key: value for key, value in record.items() if key not in told}
    return {**rest, **{name: value for name, value in fields.items() if value is not None}}
