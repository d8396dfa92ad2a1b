"""Templates: what Airflow rendered a task's arguments to, and what of that is a mistake."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_aixplain.exceptions import translate_protocol_errors
from airflow_provider_aixplain.protocol.failure import InvalidInput
from airflow_provider_aixplain.protocol.values import NOT_JSON, join_names, parse_json

MAX_NAMES = 5
"""Places, or keys, that a warning names."""

_ONE_EXPRESSION = re.compile(r"\s*\{\{(?:(?!\{\{).)*\}\}\s*", re.DOTALL)
_PYTHON_TEXT = re.compile(r"[\[{(,:] ?(?:'|None\b|True\b|False\b)")


class TemplateChecks:
    """Checks what the templates of an operator or a trigger rendered to.

    Airflow replaces the arguments by what they rendered to, so a class with these checks must store them before: by
    :meth:`store_unrendered` in ``_do_render_template_fields``. Of all methods that render, that is the only one that
    Airflow calls on every task, mapped ones and triggers included.
    """

    log: Any
    _unrendered_values: Mapping[str, Any] = MappingProxyType({})
    """The arguments as the DAG states them; None for one that comes from another task or a function."""

    def store_unrendered(self, parent: Any, names: Iterable[str], seen_oids: set[int]) -> None:
        """Store the arguments before they are rendered.

        :param parent: what is rendered: this object, or one in its arguments, which is not stored.
        :param names: the arguments' names.
        :param seen_oids: the ids of values that a mapped task gets from another task, which Airflow does not render.
        """
        if parent is not self:
            return
        given = {name: getattr(self, name, None) for name in names}
        self._unrendered_values = {name: None if id(value) in seen_oids else value for name, value in given.items()}

    def check_templates(self, *names: str) -> None:
        """Check what the templates in these arguments rendered to, and log warnings.

        :raises AixplainInputError: if one rendered to ``None``.
        """
        with translate_protocol_errors():
            for name in names:
                for warning in check(name, self._unrendered_values.get(name), getattr(self, name)):
                    self.log.warning("%s", warning)

    def warn_of_payload(self, data: Any) -> None:
        """Log a warning if ``data`` is text that the DAG does not state itself, and becomes a whole payload."""
        keys = payload_keys(data)
        if keys and self._unrendered_values.get("data", data) != data:
            self.log.warning(
                "data: the text holds a JSON object, so it is sent as the payload and sets %s."
                ' To send the text unchanged, use {"data": text}',
                join_names(keys, MAX_NAMES),
            )


class TemplatedOperator(BaseOperator, TemplateChecks):
    """An operator that can check what its templates rendered to.

    ``BaseOperator`` is the first base: of a class whose first base is a mix-in, Airflow binds ``__init__`` to that of
    ``BaseOperator``, so that a sensor would skip that of ``BaseSensorOperator``.
    """

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        self.store_unrendered(parent, template_fields, seen_oids)
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)


def check(name: str, unrendered: Any, rendered: Any) -> list[str]:
    """Return warnings about what the templates in an argument rendered to.

    :param name: the argument's.
    :param unrendered: the argument as the DAG states it.
    :param rendered: the same after Airflow rendered its templates.
    :raises InvalidInput: if a template rendered to exactly ``None``; it names the place.
    """
    places = []
    for place, template, text in _iter_changed_texts(name, unrendered, rendered):
        if text == "None" and template.strip() != "None":
            raise InvalidInput(
                f"{place}: its template rendered to None, so the XCom or parameter that it names has no value:"
                " check the task that pushes it, or state a default, such as {{ params.text | default('', true) }}"
            )
        if _ONE_EXPRESSION.fullmatch(template) and _is_python_text(text):
            places.append(place)
    if not places:
        return []
    return [
        f"{join_names(places, MAX_NAMES)}: the template rendered to Python's text of a dict or list, which is no JSON."
        " Pass the value itself, such as task.output, or add the filter tojson to the template"
    ]


def payload_keys(data: Any) -> list[str]:
    """Return the keys of the payload that a text becomes; none if it is sent as text, or is no text."""
    value = parse_json(data) if isinstance(data, str) else NOT_JSON
    return list(value) if isinstance(value, dict) else []


def _iter_changed_texts(place: str, unrendered: Any, rendered: Any) -> Iterator[tuple[str, str, str]]:
    """Yield each text in an argument that rendering has changed: its place, its template and what that became."""
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
    """Whether a text looks like ``str`` of a dict or list, and is not JSON as well."""
    is_bracketed = (text[:1], text[-1:]) in (("[", "]"), ("{", "}"))
    return is_bracketed and _PYTHON_TEXT.search(text) is not None and parse_json(text) is NOT_JSON
