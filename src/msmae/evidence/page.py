"""A self-contained HTML page from a template: one style, everything a user wrote escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msmae.evidence import wording
from msmae.evidence.cases import readable

TEMPLATES = Path(__file__).parent / "templates"


def make_page(template: str, **content: Any) -> str:
    """A template of `templates/` with ``content``, as text; a name that is missing from it is an error."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "svg": Markup,  # only what `figures` drew goes through it
        "count": wording.count,
        "split": wording.split_name,
        "duration": wording.duration,
        "significant": wording.significant,
        "percentage": wording.percentage,
        "readable": readable,
    }
    css = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(css=css, **content)
