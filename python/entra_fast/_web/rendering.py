"""Pages from Jinja2 templates: one environment, one style sheet, one script, one content security policy.

Templates come from the package and are compiled when a page is first requested. User text is only ever a
value, which the environment escapes. Jinja2 is imported for the first page, so that endpoints without pages
start and run without it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import json
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from entra_fast import _extras
from entra_fast._native import __version__

if TYPE_CHECKING:
    import jinja2

MAX_JSON_CHARACTERS: Final = 30_000
"""Maximum length of JSON on a page."""

_STATIC: Final = importlib.resources.files(__name__.rpartition(".")[0]) / "static"
STYLE: Final = (_STATIC / "style.css").read_text("utf-8")
SCRIPT: Final = (_STATIC / "script.js").read_text("utf-8")
"""Adds comfort: copy buttons, a log that updates itself. Every page works without it."""
LOGO: Final = (_STATIC / "logo.svg").read_text("utf-8").strip()


def _source(text: str) -> str:
    """The source expression of an inline style or script (Content Security Policy Level 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Inline by digest: each page is one request, and nothing else that looks like style or script is applied.
# There is no form-action: browsers also apply it to the redirects that follow a sign-in, and those lead to
# applications and to login servers that are not known here.
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; img-src data:; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Pages:
    """The pages of one product: the templates of its package, and those that all products share.

    Args:
        package: the package with a folder `templates`, which has `layout.html`.
        filters: functions that its templates use on values, besides Jinja2's own.
        values: what every template of the product knows.
    """

    def __init__(
        self,
        package: str,
        *,
        filters: Mapping[str, Callable[..., object]] | None = None,
        values: Mapping[str, object] | None = None,
    ) -> None:
        self._package = package
        self._filters = dict(filters or {})
        self._values = dict(values or {})

    def render(self, template: str, /, **values: object) -> str:
        """A whole page.

        Raises:
            ExtraMissing: Jinja2 is not installed.
        """
        return self._environment.get_template(template).render(values)

    @functools.cached_property
    def _environment(self) -> jinja2.Environment:
        with _extras.importing("dev", "a page"):
            import jinja2  # noqa: PLC0415  see the module's docstring
            from markupsafe import Markup  # noqa: PLC0415

        environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader(
                [jinja2.PackageLoader(package) for package in (self._package, __name__.rpartition(".")[0])]
            ),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"pretty": _pretty, **self._filters}
        # These are constants of this package, and the policy names the digests of style and script: the only
        # markup that is not a template.
        environment.globals |= {
            "style": Markup(STYLE),  # noqa: S704
            "script": Markup(SCRIPT),  # noqa: S704
            "logo": Markup(LOGO),  # noqa: S704
            "icon": f"data:image/svg+xml,{urllib.parse.quote(LOGO)}",
            "version": __version__,
        }
        environment.globals |= self._values
        return environment


def _pretty(value: Any) -> str:
    text = json.dumps(value if isinstance(value, list) else dict(value), indent=2, ensure_ascii=False)
    return text if len(text) <= MAX_JSON_CHARACTERS else f"{text[:MAX_JSON_CHARACTERS]}..."
