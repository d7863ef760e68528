"""What mkdocs.yml calls while the site is built: pages from outside of docs/, and the generated ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from deploy.cli import parser
from reference import commands, records, settings

REPOSITORY = Path(__file__).parents[1]
OUTSIDE: Mapping[str, str] = {"README.md": "index.md", "ARCHITECTURE.md": "architecture.md"}
"""Pages that stand beside docs/, and what they are called in the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = {site: (REPOSITORY / name).read_text(encoding="utf8") for name, site in OUTSIDE.items()}
    pages |= {
        "reference/commands.md": commands.page(parser()),
        "reference/configuration.md": settings.configuration(),
        "reference/spaces.md": settings.spaces(),
        "reference/boards.md": settings.boards(),
        "reference/records.md": records.page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return in_site(markdown)


def in_site(markdown: str) -> str:
    """Links between the repository's files as links between the site's, whose root is docs/.

    In a table's code GitHub wants `|` escaped, and the site shows the escape.
    """
    for name, site in OUTSIDE.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(name)}", f"]({site}", markdown)
    return markdown.replace("](docs/", "](").replace(r"\|", "|")
