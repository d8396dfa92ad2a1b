"""The documentation site, which ``make docs`` builds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

import airflow_provider_aixplain

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "airflow-provider-aixplain"
author = "The airflow-provider-aixplain developers"
release = airflow_provider_aixplain.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["README.md"]  # index.md includes it
# Links to other projects would need their inventories, and so a network; internal modules are not on the site.
nitpick_ignore_regex = [
    ("py:.*", r"(?!airflow_provider_aixplain\.).*"),
    ("py:.*", r"airflow_provider_aixplain\.(client|protocol)\..*"),
]

myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_mock_imports = ["airflow.providers.common.ai", "pytest"]  # imported by documented modules, and not needed
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

linkcheck_ignore = ["http://localhost"]

html_theme = "furo"
html_title = f"airflow-provider-aixplain {release}"
html_copy_source = False
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """GitHub draws diagrams of Mermaid; here they are text, as CSV is."""
    for language in ("mermaid", "csv"):
        app.add_lexer(language, TextLexer)
