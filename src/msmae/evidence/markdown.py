"""Markdown from templates, with everything that comes from the run escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from msmae.evidence import wording

TEMPLATES = Path(__file__).parent / "templates"


class Ready(str):
    """Text that is Markdown already and is not escaped again."""


def escape(text: Any) -> str:
    """``text`` so that Markdown and HTML show it as it is, on one line and in a table's cell too."""
    if isinstance(text, Ready):
        return text
    plain = " ".join(str(text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", plain)


def render(template: str, **content: Any) -> str:
    """A template of `templates/` with ``content``; every value is escaped unless it is `Ready`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,  # HTML's escaping is not Markdown's: `finalize` does it for every value
        finalize=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"duration": wording.duration, "significant": wording.significant}
    return environment.get_template(template).render(**content)
