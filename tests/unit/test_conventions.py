"""Airflow's own checks of providers, restated for this one: ``make lint`` runs them too."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException, BaseOperator

from airflow_provider_aixplain.get_provider_info import MODULES, PACKAGE, get_provider_info

ROOT = Path(__file__).parents[2] / PACKAGE
INFO = get_provider_info()
LISTED = {kind: [module for entry in INFO[kind] for module in entry["python-modules"]] for kind in MODULES}
DECORATORS = {decorator["name"]: decorator["class-name"] for decorator in INFO["task-decorators"]}
_OPERATORS = {
    value
    for module in {*LISTED["operators"], *LISTED["sensors"], *(path.rpartition(".")[0] for path in DECORATORS.values())}
    for value in vars(importlib.import_module(module)).values()
    if isinstance(value, type) and issubclass(value, BaseOperator) and value.__name__.startswith("Aixplain")
}
OPERATORS = sorted(_OPERATORS, key=lambda kind: kind.__name__)


def load(path: str) -> Any:
    """Return the object with a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def constructors(operator: type) -> Iterator[ast.FunctionDef]:
    """Yield the constructors of an operator and of its bases in this package."""
    for kind in operator.__mro__:
        if kind.__module__.startswith(PACKAGE):
            nodes = ast.walk(ast.parse(inspect.getsource(kind)))
            yield from (node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == "__init__")


def stored(init: ast.FunctionDef) -> list[ast.Name]:
    """Return the arguments that a constructor stores unchanged in the attribute of their name, or passes on."""
    found: list[ast.Name] = []
    for node in ast.walk(init):
        match node:
            case ast.Assign([ast.Attribute(ast.Name("self"), name)], ast.Name() as value) if name == value.id:
                found.append(value)
            case ast.Call(ast.Attribute(ast.Call(ast.Name("super")), "__init__")):
                found += [keyword.value for keyword in node.keywords if isinstance(keyword.value, ast.Name)]
    return found


def problems(init: ast.FunctionDef, fields: Collection[str]) -> list[str]:
    """Return what is wrong with a constructor.

    Templates are rendered after it, so all that it may do with a templated argument is to store it, to pass it on, or
    to compare it with None.

    :param fields: the names of the templated arguments.
    """
    names = [argument.arg for argument in init.args.kwonlyargs]
    positional = [*init.args.posonlyargs, *init.args.args, *filter(None, [init.args.vararg])][1:]
    found = [f"{argument.arg}: can be positional" for argument in positional]
    found += [f"{name}: not templated" for name in names if name.endswith("conn_id") and name not in fields]
    allowed: list[ast.AST] = [*stored(init)]
    found += [f"{name}: not stored" for name in names if name in fields and name not in map(ast.unparse, allowed)]
    for node in ast.walk(init):
        match node:
            case ast.Compare(left, [ast.Is() | ast.IsNot()], [ast.Constant(None)]):
                allowed.append(left)
            case ast.Name(name, ast.Load()) | ast.Attribute(ast.Name("self"), name, ast.Load()):
                if name in fields and node not in allowed:
                    found.append(f"{name}: used before it is rendered")
    own_default = "deferrable: bool | None=None", "self.deferrable = deferrable_or_default(deferrable)"
    if "deferrable" in names and not all(part in ast.unparse(init) for part in own_default):
        found.append("deferrable: its default is not [aixplain] deferrable")
    return found


def test_the_entry_point_matches_airflows_schema() -> None:
    (entry,) = [entry for entry in entry_points(group="apache_airflow_provider") if "aixplain" in entry.value]
    assert entry.load() is get_provider_info
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


@pytest.mark.parametrize("kind", MODULES)
def test_modules_with_a_public_class_are_listed_helpers_not(kind: str) -> None:
    public = [path.stem for path in (ROOT / kind).glob("*.py") if re.search(r"^class Aixplain", path.read_text(), re.M)]
    assert sorted(LISTED[kind]) == sorted(f"{PACKAGE}.{kind}.{name}" for name in public)
    for module in LISTED[kind]:
        with suppress(AirflowOptionalProviderFeatureException):
            importlib.import_module(module)


@pytest.mark.parametrize("path", INFO["extra-links"] + [entry["hook-class-name"] for entry in INFO["connection-types"]])
def test_every_listed_class_exists(path: str) -> None:
    assert isinstance(load(path), type)


@pytest.mark.parametrize("name", DECORATORS)
def test_decorated_operators_show_the_decorators_name(name: str) -> None:
    decorated = load(DECORATORS[name])(lambda: "")
    assert decorated.operator_class.custom_operator_name == f"@task.{name}"


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_constructors_of_operators_follow_airflows_rules(operator: type[BaseOperator]) -> None:
    inits = list(constructors(operator))
    assert not [problem for init in inits for problem in problems(init, operator.template_fields)]
    known = {name.id for init in inits for name in stored(init)}
    assert not set(operator.template_fields) - known, "templated, but no argument"


@pytest.mark.parametrize(
    ("arguments", "line", "problem"),
    [
        ("*, text", "self.text = text", None),
        ("*, text", "super().__init__(text=text)", None),
        ("*, text", "self.text = text; self.has_text = text is not None", None),
        ("*, text", "self.text = text.strip()", "text: not stored"),
        ("*, text", "self.text = text; self.length = len(self.text)", "text: used before it is rendered"),
        ("text", "self.text = text", "text: can be positional"),
        ("*texts", "", "texts: can be positional"),
        ("*, other_conn_id", "self.other_conn_id = other_conn_id", "other_conn_id: not templated"),
        ("*, deferrable: bool | None=None", "self.deferrable = deferrable_or_default(deferrable)", None),
        ("*, deferrable=True", "self.deferrable = deferrable", "deferrable: its default is not [aixplain] deferrable"),
    ],
)
def test_a_constructor_against_the_rules_is_reported(arguments: str, line: str, problem: str | None) -> None:
    init = ast.parse(f"def __init__(self, {arguments}):\n    pass; {line}").body[0]
    assert isinstance(init, ast.FunctionDef)
    found = problems(init, ["text"])
    assert found[:1] == ([problem] if problem else [])
