"""A request as commands to paste: curl, HTTPie, Python. Text only."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PLACEHOLDER_URL: Final = "https://your-api.example/path"


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and the tool that it is for."""

    tool: str
    text: str


def post_form(url: str, fields: Mapping[str, str]) -> tuple[Command, ...]:
    """Post a form, as the token endpoint wants it."""
    curl = " ".join(["curl -s", shlex.quote(url), *_options(fields, "--data-urlencode ")])
    httpie = " ".join(["http --form POST", shlex.quote(url), *_options(fields)])
    return (
        Command("curl", curl),
        Command("HTTPie", httpie),
        _python("post", url, f"data={_literal(fields)}"),
    )


def post_json(url: str, body: Mapping[str, str]) -> tuple[Command, ...]:
    """Post a JSON object of strings."""
    # curl's own content type would be that of a form.
    data = shlex.quote(json.dumps(body, ensure_ascii=False))
    curl = f"curl -s {shlex.quote(url)} -H 'Content-Type: application/json' -d {data}"
    httpie = " ".join(["http POST", shlex.quote(url), *_options(body)])
    return (Command("curl", curl), Command("HTTPie", httpie), _python("post", url, f"json={_literal(body)}"))


def call_api(token: str) -> tuple[Command, ...]:
    """Call an API with a token; its address is a placeholder."""
    url = PLACEHOLDER_URL
    header = shlex.quote(f"Authorization: Bearer {token}")
    httpie = shlex.quote(f"Authorization:Bearer {token}")
    headers = _literal({"Authorization": f"Bearer {token}"})
    return (
        Command("curl", f"curl {shlex.quote(url)} -H {header}"),
        Command("HTTPie", f"http {shlex.quote(url)} {httpie}"),
        _python("get", url, f"headers={headers}"),
    )


def _options(fields: Mapping[str, str], option: str = "") -> list[str]:
    return [f"{option}{shlex.quote(f'{name}={value}')}" for name, value in fields.items()]


def _python(method: str, url: str, argument: str) -> Command:
    address = json.dumps(url, ensure_ascii=False)
    lines = (
        "import requests",
        "",
        f"response = requests.{method}({address}, {argument})",
        "print(response.json())",
    )
    text = "\n".join(lines)
    return Command("Python", text)


def _literal(value: Mapping[str, str]) -> str:
    # A JSON object of strings is a Python literal too.
    return json.dumps(value, ensure_ascii=False)
