"""The files on the page Installation name the versions of the provider and of the tests, and agree with each other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from airflow_provider_aixplain import __version__

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/installation.md").read_text(encoding="utf-8")


def blocks(kind: str, page: str = PAGE) -> list[str]:
    """Return the blocks of a kind on a page."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_each_tested_airflow_has_its_constraints() -> None:
    (tested,) = re.findall(r"^AIRFLOWS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    address = "--constraint https://raw.githubusercontent.com/apache/airflow/constraints-{0}/constraints-3.11.txt"
    wanted = [f"{address}\napache-airflow=={{0}}\n".format(airflow) for airflow in tested.split()]
    assert blocks("text") == wanted
    assert set(re.findall(r"apache[-/]airflow(?:==|:slim-)([\d.]+)", PAGE)) == set(tested.split())


def test_every_command_names_the_providers_version() -> None:
    assert set(re.findall(r"airflow-provider-aixplain(==[\d.]+)?[ \n]", "\n".join(blocks("(?:shell|dockerfile)")))) == {
        f"=={__version__}",
        "",  # airflow providers get
    }


def test_the_values_agree_with_image_secret_and_metrics() -> None:
    (text,) = blocks("yaml")
    values = yaml.safe_load(text)
    image = values["images"]["airflow"]
    assert f"docker push {image['repository']}:{image['tag']}\n" in PAGE
    assert image["tag"] == f"{values['airflowVersion']}-{__version__}"
    assert f"FROM apache/airflow:slim-{values['airflowVersion']}-python" in PAGE
    ((secret, connection),) = re.findall(r"secret generic (\S+) .*\n +--from-literal=connection='(.*)'", PAGE)
    assert values["secret"][0]["secretName"] == secret
    assert json.loads(connection)["conn_type"] == "aixplain"
    mappings, *_ = blocks("yaml", (ROOT / "docs/metrics.md").read_text(encoding="utf-8"))
    assert values["statsd"]["extraMappings"] == yaml.safe_load(mappings)["mappings"]
