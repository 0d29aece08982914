"""The token generator's pages: HTML as text, from plain values. No requests, no provider, no state.

Everything that comes from outside passes through `escape`. There are no scripts; the one style sheet is
inline and allowed by its digest, so that nothing else can be smuggled in (Content-Security-Policy level 3).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #59636e; --paper: #fbfbfa; --card: #fff;
  --line: #d5d9de; --accent: #0b5cad; --on-accent: #fff; --bad: #a40e26; --bad-paper: #fff0f0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --dim: #a2abb5; --paper: #14171b;
  --card: #1c2026; --line: #3a424c; --accent: #7db8f5; --on-accent: #0b1420; --bad: #ff9aa5;
  --bad-paper: #33191d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main, header { max-width: 56rem; margin: 0 auto; padding: 1rem 1.25rem; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: baseline;
  justify-content: space-between; }
header p { margin: 0; } header form { display: inline; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 0 0 .75rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.25rem;
  margin: 1rem 0; }
section > :last-child { margin-bottom: 0; }
.brand { font-weight: 650; color: inherit; text-decoration: none; } .dim { color: var(--dim); }
a { color: var(--accent); } code, pre, input { font-family: ui-monospace, monospace; font-size: .92em; }
pre { overflow-x: auto; padding: .75rem; background: var(--paper); border: 1px solid var(--line);
  border-radius: .4rem; white-space: pre-wrap; overflow-wrap: anywhere; }
label { display: block; font-weight: 600; margin-bottom: .25rem; }
input { width: 100%; padding: .55rem .7rem; border: 1px solid var(--dim); border-radius: .4rem;
  background: var(--paper); color: var(--ink); }
.buttons { display: flex; flex-wrap: wrap; gap: .5rem; margin-top: .75rem; }
button, .button { font: inherit; padding: .45rem .9rem; border: 1px solid var(--accent); border-radius: .4rem;
  background: var(--accent); color: var(--on-accent); cursor: pointer; text-decoration: none; }
button.plain { background: none; color: var(--accent); border: 0; padding: 0; text-decoration: underline; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
ul { list-style: none; margin: 0; padding: 0; }
li { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; justify-content: space-between; padding: .55rem 0;
  border-top: 1px solid var(--line); }
li span { display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
li code { font-weight: 600; overflow-wrap: anywhere; }
.error { background: var(--bad-paper); border-color: var(--bad); } .error h1 { color: var(--bad); }
dt { font-weight: 600; } dd { margin: 0 0 .6rem; overflow-wrap: anywhere; white-space: pre-line; }
"""

_STYLE_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY = (
    # No form-action: browsers apply it to the redirects that follow as well, and a tenant may send its users
    # on to login servers that nobody here can know.
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none'; frame-ancestors 'none'"
)

_ADVICE = {
    501051: "The target does not admit the token generator. Add it to the target's manifest, under "
    "spec.accessPolicy.inbound.rules.",
    65001: "The target does not admit the token generator. Add it to the target's manifest, under "
    "spec.accessPolicy.inbound.rules.",
    500011: "No application has this name in this tenant. Check cluster, namespace and name.",
    50105: "You are in none of the groups that the target admits. Log in as somebody else, or add a group "
    "under spec.azure.application.claims.groups in the target's manifest (or set allowAllUsers: true).",
    70011: "The audience is not a scope that the provider understands.",
    7000215: "The token generator's own client secret is wrong.",
    700027: "The token generator's own key is not known to the provider.",
    90055: "The provider asks to slow down. Wait a little and try again.",
}


def start_page(
    *,
    issuer: str,
    base_url: str,
    audiences: Sequence[str],
    user: str | None,
    minutes_left: int,
) -> str:
    """Choose an audience and a way to get a token for it."""
    options = "".join(f'<option value="{escape(a)}"></option>' for a in audiences)
    rows = "".join(map(_audience_row, audiences))
    listing = f"<section><h2>Known audiences</h2><ul role=list>{rows}</ul></section>" if audiences else ""
    example = audiences[0] if audiences else "<cluster>:<namespace>:<app>"
    command = f"TOKEN=$(curl -sf '{base_url}/api/public/m2m' -d 'aud={example}')"
    return _page(
        "Token generator",
        f"""<h1>Token generator</h1>
<p>Signed tokens for trying an API out, from <code>{escape(issuer)}</code>. Every request gets a fresh token.
The target must admit this application in its inbound rules.</p>
<section><h2>Get a token</h2>
<form action="/api/obo" method=get>
<label for=aud>Audience</label>
<input id=aud name=aud list=audiences required maxlength=512 autocomplete=off
 spellcheck=false autocapitalize=none aria-describedby=forms placeholder="cluster:namespace:app">
<datalist id=audiences>{options}</datalist>
<p id=forms class=dim><code>cluster:namespace:app</code>, <code>cluster.namespace.app</code>, or a scope
that starts with <code>api://</code> or <code>https://</code></p>
<div class=buttons><button formaction="/api/obo">On behalf of me</button>
<button formaction="/api/m2m">Machine to machine</button></div>
</form></section>
{listing}
<section><h2>From a shell</h2>
<p>Machine to machine, without a login; the answer is the bare token:</p>
<pre><code>{escape(command)}</code></pre></section>""",
        user=user,
        minutes_left=minutes_left,
    )


def _audience_row(audience: str) -> str:
    name, query = escape(audience), escape(quote(audience, safe=""))
    return (
        f"<li><code>{name}</code><span>"
        f'<a href="/api/obo?aud={query}" aria-label="On behalf of me, for {name}">On behalf of me</a>'
        f'<a href="/api/m2m?aud={query}" aria-label="Machine to machine, for {name}">Machine to machine</a>'
        "</span></li>"
    )


def error_page(
    *,
    title: str,
    error: str,
    description: str,
    codes: Sequence[int] = (),
    again: str | None = None,
    user: str | None = None,
    minutes_left: int = 0,
) -> str:
    """What went wrong, in the provider's own words, and what to do about it.

    Args:
        again: a local path that repeats what was asked.
    """
    advice = "".join(f"<p>{escape(_ADVICE[code])}</p>" for code in codes if code in _ADVICE)
    retry = f'<a class=button href="{escape(again)}">Try again</a>' if again else ""
    return _page(
        title,
        f"""<section class=error role=alert><h1>{escape(title)}</h1>{advice}
<dl><dt>error<dd><code>{escape(error)}</code>
<dt>error_description<dd>{escape(description)}</dl></section>
<p class=buttons>{retry}<a class=button href="/">Choose another audience</a></p>""",
        user=user,
        minutes_left=minutes_left,
    )


def _page(title: str, content: str, *, user: str | None, minutes_left: int) -> str:
    if user is None:
        who = '<p class=dim>Not logged in. <a href="/oauth2/login">Log in</a></p>'
    else:
        who = (
            f"<div>Logged in as <strong>{escape(user)}</strong> "
            f"<span class=dim>({minutes_left} min left)</span> "
            '<a href="/oauth2/login?prompt=select_account">Switch user</a> '
            '<form action="/oauth2/logout" method=post><button class=plain>Log out</button></form></div>'
        )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f'<header><a class=brand href="/">entra_fast token generator</a>{who}</header>'
        f"<main>{content}</main></body></html>\n"
    )
