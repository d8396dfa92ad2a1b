"""Records of models in the platform's catalogue: their states and the parameters that they declare."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.values import parse_number, parse_time, to_text
from airflow_provider_aixplain.protocol.wire import Answer, NoResponse, read_object, unusable_answer_error


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


_Member = TypeVar("_Member", AssetStatus, FunctionType)


def to_member(kind: type[_Member], value: object) -> _Member | str | None:
    """Return the enum member of a value that the platform sent; an unknown string unchanged; otherwise None."""
    try:
        return kind(value)
    except ValueError:
        return value if isinstance(value, str) and value else None


@dataclass
class Parameter:
    """A parameter that a model declares.

    :param name: its name in ``parameters``.
    :param required: whether a run needs it.
    :param value: the value that was set on :class:`ModelParameters`; a run does not send it.
    :param is_fixed: whether the model's provider has fixed its value.
    :param values: preset or supported values.
    :param default_values: the values that a run has by default.
    :param available_options: the values to choose from.
    :param data_type: such as ``text``, ``number``, ``boolean``, ``json``, ``array``.
    :param data_sub_type: the content of a text, such as ``json`` or ``number``.
    :param multiple_values: whether it accepts a list of values.
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

    def accepts(self, value: Any) -> bool:
        """Return whether a JSON value has the declared type.

        Null is accepted for every type, and any value for an unknown type. A string that spells a number or a boolean
        counts as one: templates render to strings, and the payload's ``data`` holds both as strings.
        """
        is_list = self.multiple_values and isinstance(value, list)
        return self._accepts_item(value) or (is_list and all(self._accepts_item(item) for item in value))

    def _accepts_item(self, value: Any) -> bool:
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
    """The parameters that a model declares. Each is an attribute that holds the value set for it, by default None.

    A run sends its argument ``parameters`` and not these values, like the platform's own client.

    :param input_params: maps names to declarations with the platform's keys ``required``, ``isFixed``, ``values``,
        ``defaultValues``, ``availableOptions``, ``dataType``, ``dataSubType`` and ``multipleValues``, all optional.
    """

    parameters: dict[str, Parameter]

    def __init__(self, input_params: Mapping[str, Mapping[str, Any]]) -> None:
        if not isinstance(input_params, Mapping):
            raise InvalidInput(
                f"model_params is a {type(input_params).__name__}: give a dict from names to declarations"
            )
        declared = {str(name): _read_declaration(str(name), entry) for name, entry in input_params.items()}
        object.__setattr__(self, "parameters", declared)

    def get_parameter(self, name: str) -> Parameter | None:
        """Return the declaration of a parameter, or None."""
        return self.parameters.get(name)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the declarations with the platform's keys, and the values, by parameter name."""
        return {
            p.name: {"name": p.name, "value": p.value, **{key: getattr(p, name) for name, (key, _) in _KEYS.items()}}
            for p in self.parameters.values()
        }

    def to_list(self) -> list[dict[str, Any]]:
        """Return the names and values of the parameters that have a value."""
        return [{"name": p.name, "value": p.value} for p in self.parameters.values() if p.value is not None]

    def check(self, payload: Mapping[str, Any]) -> None:
        """Check that a payload has all required parameters, with the declared types.

        The input is usually sent as ``data``, whatever the model calls it. So ``data`` counts as one missing parameter,
        or as all of them if it is an object or a list.

        :param payload: the body of the run.
        :raises InvalidInput: naming every parameter that is missing or has a wrong type.
        """
        problems = [
            f"{name} is {payload[name]!r:.100}, but the model accepts {parameter.data_type}"
            for name, parameter in self.parameters.items()
            if name in payload and not parameter.accepts(payload[name])
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
            hint = " (data can be one of them)" if data is not None else ""
            if missing and not isinstance(data, (dict, list)):
                names = ", ".join(missing)
                problems.append(f"the model requires {names}{hint}: give them in parameters, or give data as an object")
        if problems:
            raise InvalidInput("; ".join(problems))

    def __getattr__(self, name: str) -> Any:
        """Return the value of a parameter.

        :raises AttributeError: if the model does not declare it.
        """
        return self._find_declaration(name).value

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the value of a parameter.

        :raises AttributeError: if the model does not declare it.
        """
        self._find_declaration(name).value = value

    def __str__(self) -> str:
        """Return a line for each parameter."""
        lines = []
        for p in self.parameters.values():
            options = [option.get("value") if isinstance(option, dict) else option for option in p.available_options]
            marks = ["required" if p.required else "optional", *(["fixed"] if p.is_fixed else [])]
            marks += [str(p.data_type)] * bool(p.data_type) + [f"one of {options}"] * bool(options)
            lines.append(f"  - {p.name}: {'not set' if p.value is None else p.value} ({', '.join(marks)})")
        return "\n".join(["Parameters:", *lines]) if lines else "No parameters declared"

    def _find_declaration(self, name: str) -> Parameter:
        # copy and pickle read attributes before "parameters" exists, which would call __getattr__ without end.
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
"""The platform's key for each attribute of a declaration, and its type; a value of another type is ignored."""


def _read_declaration(name: str, entry: Any) -> Parameter:
    entry = entry if isinstance(entry, Mapping) else {}
    attributes = {attribute: entry[key] for attribute, (key, kind) in _KEYS.items() if isinstance(entry.get(key), kind)}
    for attribute in ("values", "default_values"):
        single = entry.get(_KEYS[attribute][0])
        if attribute not in attributes and single not in (None, "", {}):
            attributes[attribute] = [single]
    return Parameter(name, value=entry.get("value"), **attributes)


def read_model(outcome: Answer | NoResponse) -> dict[str, Any]:
    """Return a model's record as the arguments of :class:`~airflow_provider_aixplain.model.Model`.

    Other fields of the record keep their names; ``api_key`` is dropped. A missing or malformed field has the argument's
    default, except for a missing state, which is ``draft``.

    :param outcome: the answer to the request for the record.
    :raises RequestFailed: if the platform refuses, or the answer is not a record with an id.
    """
    record = read_object(outcome, "model")
    if not isinstance(record.get("id"), str) or not record["id"]:
        raise unusable_answer_error("model", "has no id", record)
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
    handled = {"pricing", "params", "supportsStreaming", "functionType", "self", "api_key", *fields}
    if fields["created_at"]:
        handled.add("createdAt")
    rest = {key: value for key, value in record.items() if key not in handled}
    return {**rest, **{name: value for name, value in fields.items() if value is not None}}
