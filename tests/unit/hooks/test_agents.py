"""The hook for common.ai without that provider. ``tests/common_ai`` tests it with the provider."""

from __future__ import annotations

import importlib
import sys

import pytest
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException

MODULE = "airflow_provider_aixplain.hooks.agents"


@pytest.mark.parametrize("version", [(3, 10), (3, 11)])
def test_an_import_without_the_extra_names_it(version: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("airflow_provider_aixplain.hooks.aixplain")  # with the version of this Python
    monkeypatch.setitem(sys.modules, "airflow.providers.common.ai", None)
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(AirflowOptionalProviderFeatureException, match=r"pip install '.*\[common-ai\]'") as raised:
        importlib.import_module(MODULE)
    assert ("requires Python 3.11 or later" in str(raised.value)) is (version == (3, 10))
