"""The frame around every page: document, style, navigation, banner; and the pages for errors.

No script is needed anywhere. The only one there is submits the form of `response_mode=form_post`, which works by a
button as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from entra_fast.emulator.protocol.policy import Reason
from entra_fast.emulator.web.html import Child, Html, csp_hash, join, raw_element, tag

# ruff: noqa: E501  the style sheet
STYLE: Final = """
:root{color-scheme:light dark;--back:#fff;--card:#f6f7f9;--text:#16191d;--soft:#4d5661;--line:#c9cfd6;--link:#0a4fb3;
--good:#0b6b35;--bad:#a8161f;--mark:#0a4fb3;--marktext:#fff;--warn:#7a4b00}
@media (prefers-color-scheme:dark){:root{--back:#14171b;--card:#1d2127;--text:#eceff3;--soft:#a9b3bf;--line:#3d4651;
--link:#8ab8ff;--good:#6ddc98;--bad:#ff938c;--mark:#8ab8ff;--marktext:#0c1116;--warn:#ffc766}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
a{color:var(--link)}
a:focus-visible,button:focus-visible,input:focus-visible,select:focus-visible,textarea:focus-visible,
summary:focus-visible,pre:focus-visible{outline:3px solid var(--mark);outline-offset:2px}
.skip{position:absolute;left:-999px}.skip:focus{left:.5rem;top:.5rem;background:var(--back);padding:.5rem;z-index:1}
header{border-bottom:1px solid var(--line);padding:.5rem 1rem}
header>*{max-width:68rem;margin:0 auto}header nav ul{display:flex;flex-wrap:wrap;gap:0 1.25rem;list-style:none;margin:0;padding:0}
header nav a{display:inline-block;padding:.4rem 0}header nav a[aria-current]{font-weight:700;color:var(--text)}
.banner{color:var(--warn);font-size:.875rem}
main{max-width:70rem;margin:0 auto;padding:1rem}
main.narrow{max-width:34rem}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0 1rem}h2{font-size:1.15rem;margin:1.75rem 0 .5rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:1rem;margin:0 0 1rem}
.card>:first-child,.card>:first-child>label:first-child,.card>.row:nth-child(2){margin-top:0}
.remedy{border-left:3px solid var(--mark);padding-left:.75rem;margin:.25rem 0 .5rem}
.soft{color:var(--soft)}.small{font-size:.875rem}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
label{display:block;font-weight:600;margin:.75rem 0 .25rem}
input,select,textarea{font:inherit;width:100%;padding:.5rem;color:inherit;background:var(--back);
border:1px solid var(--soft);border-radius:.35rem}
input[type=checkbox]{width:auto}
button{font:inherit;font-weight:600;padding:.55rem 1rem;border-radius:.35rem;border:1px solid var(--mark);
background:var(--mark);color:var(--marktext);cursor:pointer;min-height:2.75rem}
button.plain{background:transparent;color:var(--link)}
button.user{display:block;width:100%;text-align:left;font-weight:400;background:var(--back);color:var(--text);
border:1px solid var(--line);margin:0 0 .5rem}
button.user:hover{border-color:var(--mark)}button.user strong{display:block}
form p{margin:1rem 0 0}.row{margin:.75rem 0 0;display:flex;flex-wrap:wrap;gap:.75rem 1rem;align-items:end}.row>*{flex:1 1 12rem}
.row label{margin-top:0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
th,td{text-align:left;vertical-align:top;padding:.45rem .75rem .45rem 0;border-bottom:1px solid var(--line)}
@media (max-width:40rem){table.stack thead{display:none}table.stack tr{display:block;border-bottom:1px solid var(--line);
padding:.5rem 0}table.stack td{display:block;border:0;padding:.1rem 0}
table.stack td[data-label]:before{content:attr(data-label) ": ";color:var(--soft)}}
code,pre{font-family:ui-monospace,monospace;font-size:.875rem}
pre{background:var(--back);border:1px solid var(--line);border-radius:.35rem;padding:.75rem;margin:.5rem 0;
white-space:pre-wrap;overflow-wrap:anywhere}
pre.copy{user-select:all}
dl{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr;gap:.25rem 1rem;margin:0}dd{margin:0}
dt{color:var(--soft)}@media (max-width:40rem){dl{display:block}dd{margin:0 0 .5rem}}
ol.checks{list-style:none;padding:0;margin:0}ol.checks li{margin:.4rem 0}
ul.plain{padding-left:1.2rem;margin:.25rem 0}
"""

SUBMIT_SCRIPT: Final = "document.forms[0].submit()"

# Nothing is loaded from anywhere, nothing may frame these pages. There is no form-action: browsers apply it
# to the redirect that follows a login as well, and that goes to the application.
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src {csp_hash(STYLE)}; script-src {csp_hash(SUBMIT_SCRIPT)}; img-src data:; "
    "base-uri 'none'; frame-ancestors 'none'"
)

_ICON: Final = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' "
    "fill='%230a4fb3'/%3E%3Cpath d='M5 8l2 3 4-6' stroke='white' stroke-width='2' fill='none'/%3E%3C/svg%3E"
)

NAVIGATION: Final = (
    ("/", "Applications"),
    ("/users", "Users and groups"),
    ("/log", "Log"),
    ("/explain", "Explain"),
    ("/mint", "Get a token"),
    ("/faults", "Faults and time"),
    ("/endpoints", "Endpoints and keys"),
)


def document(
    title: str,
    *children: Child,
    current: str | None = None,
    narrow: bool = False,
    script: bool = False,
    refresh: int | None = None,
) -> str:
    """A whole page.

    Args:
        current: path of the entry of the navigation that this page belongs to; None for pages without
            navigation.
        script: whether the form on the page submits itself.
        refresh: seconds after which the browser loads the page again.
    """
    links = [
        tag("li", tag("a", text, href=path, aria_current="page" if path == current else None))
        for path, text in NAVIGATION
    ]
    header = tag(
        "header",
        tag(
            "p",
            "Local Entra ID for development: its tokens prove nothing. Not for production.",
            class_="banner",
        ),
        tag("nav", tag("ul", links), aria_label="Console") if current is not None else None,
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="refresh", content=refresh) if refresh is not None else None,
        tag("title", f"{title} | local Entra ID"),
        tag("link", rel="icon", href=_ICON),
        raw_element("style", STYLE),
    )
    body = tag(
        "body",
        tag("a", "To the content", href="#content", class_="skip"),
        header,
        tag("main", tag("h1", title), children, id="content", class_="narrow" if narrow else None),
        raw_element("script", SUBMIT_SCRIPT) if script else None,
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en")


def checks(reasons: Iterable[Reason]) -> Html:
    """The checks of a decision as a list: sign, sentence, place, remedy."""
    return tag(
        "ol",
        [
            tag(
                "li",
                tag(
                    "strong",
                    f"✓ {reason.check}" if reason.passed else f"✗ {reason.check}",
                    tag("span", " passed" if reason.passed else " refused", class_="skip"),
                    class_="good" if reason.passed else "bad",
                ),
                f": {reason.text}",
                tag("span", f" ({reason.location})", class_="soft small") if reason.location else None,
                tag("div", tag("strong", "What to change: "), reason.remedy, class_="remedy")
                if reason.remedy
                else None,
            )
            for reason in reasons
        ],
        class_="checks",
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[Child]], caption: str) -> Html:
    """A table that becomes a list on narrow screens."""
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption, class_="skip"),
            tag("thead", tag("tr", [tag("th", heading, scope="col") for heading in headings])),
            tag(
                "tbody",
                [
                    tag(
                        "tr",
                        [
                            tag("td", cell, data_label=heading)
                            for heading, cell in zip(headings, row, strict=True)
                        ],
                    )
                    for row in rows
                ],
            ),
            class_="stack",
        ),
        class_="scroll",
    )


def error_page(
    title: str, text: str, reasons: Sequence[Reason] = (), details: Sequence[tuple[str, str]] = ()
) -> str:
    """A page for a refusal that must not be sent to the application."""
    return document(
        title,
        tag("p", text, role="alert"),
        tag("section", tag("h2", "Why"), checks(reasons), class_="card") if reasons else None,
        tag("dl", [join(tag("dt", name), tag("dd", value)) for name, value in details]) if details else None,
        tag("p", tag("a", "To the console", href="/")),
        narrow=True,
    )


def form_post_page(action: str, fields: Sequence[tuple[str, str]]) -> str:
    """OAuth 2.0 Form Post Response Mode: a form that carries the answer to the application."""
    return document(
        "Back to the application",
        tag(
            "form",
            [tag("input", type="hidden", name=name, value=value) for name, value in fields],
            tag("p", tag("button", "Continue", type="submit")),
            method="post",
            action=action,
        ),
        narrow=True,
        script=True,
    )
