"""Templates of `templates/`, filled: HTML pages with one style, or Markdown. What a user wrote is escaped."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmae.reporting import wording
from msmae.reporting.cases import readable

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"


class Ready(str):
    """Text that is Markdown already and is not escaped again."""


def make_page(template: str, **content: Any) -> str:
    """An HTML template with ``content``, as text; a name that is missing from it is an error."""
    return environment(html=True).get_template(template).render(**content)


def render(template: str, **content: Any) -> str:
    """A Markdown template with ``content``; every value is escaped unless it is `Ready`."""
    return environment(html=False).get_template(template).render(**content)


def escape(text: Any) -> str:
    """``text`` so that Markdown and HTML show it as it is, on one line and in a table's cell too."""
    if isinstance(text, Ready):
        return text
    plain = " ".join(str(text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", plain)


@cache
def environment(*, html: bool) -> jinja2.Environment:
    """Where the templates are found; it keeps them compiled, for there is a page a run."""
    import jinja2
    from markupsafe import Markup

    made = jinja2.Environment(  # nosec B701 # Markdown has its own escaping, below
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=html,
        finalize=None if html else escape,  # HTML's escaping is not Markdown's
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
    )
    made.filters |= {
        "svg": Markup,  # only what `figures` drew goes through it
        "count": wording.count,
        "split": wording.split_name,
        "duration": wording.duration,
        "significant": wording.significant,
        "percentage": wording.percentage,
        "readable": readable,
    }
    return made
