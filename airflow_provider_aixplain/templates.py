"""Checks of rendered templates for likely mistakes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.compat import BaseOperator
from airflow_provider_aixplain.exceptions import translate_protocol_errors
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.values import NOT_JSON, join_names, parse_json

MAX_NAMES = 5
"""The most places, or keys, that a warning names."""

_ONE_EXPRESSION = re.compile(r"\s*\{\{(?:(?!\{\{).)*\}\}\s*", re.DOTALL)
_PYTHON_TEXT = re.compile(r"[\[{(,:] ?(?:'|None\b|True\b|False\b)")


class TemplateChecks:
    """Checks the rendered templates of an operator or a trigger.

    Airflow replaces arguments by their rendered values, so a class with these checks stores the unrendered ones first:
    it calls :meth:`store_unrendered` in ``_do_render_template_fields``, the only rendering method that Airflow calls on
    every task, including mapped tasks and triggers.
    """

    log: Any
    _raw_arguments: Mapping[str, Any] = MappingProxyType({})
    """The arguments as in the DAG; None for one that comes from another task or a function."""

    def store_unrendered(self, parent: Any, names: Iterable[str], seen_oids: set[int]) -> None:
        """Store the arguments before they are rendered.

        :param parent: the object to render: this one, or one in its arguments, for which nothing is stored.
        :param names: the arguments' names.
        :param seen_oids: the ids of values that a mapped task reads from another task, which Airflow does not render.
        """
        if parent is not self:
            return
        arguments = {name: getattr(self, name, None) for name in names}
        self._raw_arguments = {name: None if id(value) in seen_oids else value for name, value in arguments.items()}

    def check_templates(self, *names: str) -> None:
        """Check these rendered arguments, and log warnings.

        :raises AixplainInputError: if a template rendered to ``None``.
        :raises UnsupportedAirflowError: if Airflow renders by a method that this class does not override.
        """
        compat.check_rendering(type(self))
        with translate_protocol_errors():
            for name in names:
                for warning in check(name, self._raw_arguments.get(name), getattr(self, name)):
                    self.log.warning("%s", warning)

    def check_input(self, *names: str) -> None:
        """Check the rendered input of a run, as :meth:`check_templates`; warn if text becomes a whole payload."""
        self.check_templates(*names)
        data = getattr(self, "data", None)  # an agent's run has none
        payload = parse_json(data) if isinstance(data, str) else None
        if payload and isinstance(payload, dict) and self._raw_arguments.get("data", data) != data:
            self.log.warning(
                "data: the string contains a JSON object, so it is sent as the payload and sets %s."
                ' To send it unchanged, use {"data": text}',
                join_names(list(payload), MAX_NAMES),
            )


class TemplatedOperator(BaseOperator, TemplateChecks):
    """An operator that checks its rendered templates.

    ``BaseOperator`` is the first base. If it were a mix-in, Airflow would bind ``__init__`` to that of
    ``BaseOperator``, and a sensor would skip that of ``BaseSensorOperator``.
    """

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        self.store_unrendered(parent, template_fields, seen_oids)
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)


def check(name: str, unrendered: Any, rendered: Any) -> list[str]:
    """Return warnings about the rendered templates in an argument.

    :param name: the argument's name.
    :param unrendered: the argument as in the DAG.
    :param rendered: the same argument after Airflow has rendered its templates.
    :raises InvalidInput: if a template rendered to exactly ``None``; the message names the place.
    """
    places = []
    for place, template, text in _iter_changed_texts(name, unrendered, rendered):
        if text == "None" and template.strip() != "None":
            raise InvalidInput(
                f"{place}: its template rendered to None, so the XCom or parameter that it names has no value:"
                " check the task that pushes it, or set a default, such as {{ params.text | default('', true) }}"
            )
        if _ONE_EXPRESSION.fullmatch(template) and _is_python_text(text):
            places.append(place)
    if not places:
        return []
    return [
        (
            f"{join_names(places, MAX_NAMES)}: the template rendered to Python's representation of a dict or list."
            " Pass the value itself, such as task.output, or add the filter tojson to the template"
        )
    ]


def _iter_changed_texts(place: str, unrendered: Any, rendered: Any) -> Iterator[tuple[str, str, str]]:
    """Yield each string in an argument that rendering has changed: its place, its template and the result."""
    if isinstance(unrendered, str) and isinstance(rendered, str):
        if unrendered != rendered:
            yield place, unrendered, rendered
    elif isinstance(unrendered, Mapping) and isinstance(rendered, Mapping):
        for key, value in unrendered.items():
            if key in rendered:
                yield from _iter_changed_texts(f"{place}[{key!r}]", value, rendered[key])
    elif isinstance(unrendered, (list, tuple)) and isinstance(rendered, (list, tuple)):
        for index, (template, text) in enumerate(zip(unrendered, rendered, strict=False)):
            yield from _iter_changed_texts(f"{place}[{index}]", template, text)


def _is_python_text(text: str) -> bool:
    """Return whether a string looks like ``str`` of a dict or list, and is not JSON."""
    is_bracketed = (text[:1], text[-1:]) in (("[", "]"), ("{", "}"))
    return is_bracketed and _PYTHON_TEXT.search(text) is not None and parse_json(text) is NOT_JSON
