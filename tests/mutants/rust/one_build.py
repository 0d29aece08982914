"""All mutants of a module in one build of the tests: a variable of the environment says which of them runs.

What belongs here: writing such a source file, and finding out which mutants do not compile. To build the
core for each mutant takes most of its time. So a function that has mutants gets a body for each of them,
and one `match` that chooses:

    pub fn is_app(&self) -> bool { match crate::validate::claims::chosen_mutant() {
    1 => { true }
    2 => { false }
    _ => { self.get("idtyp").is_some_and(|idtyp| idtyp.is_str("app")) }
    } }

Mutants that do not fit (constants, `const fn`, functions that return `impl Trait`) are built alone by
cargo-mutants.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "ENTRA_FAST_MUTANT"
"""Number of the mutant that runs; none of them where it is not set."""

CHOOSE = f"""
pub(crate) fn chosen_mutant() -> u32 {{
    static CHOSEN: std::sync::LazyLock<u32> = std::sync::LazyLock::new(|| {{
        std::env::var("{VARIABLE}").ok().and_then(|number| number.parse().ok()).unwrap_or(0)
    }});
    *CHOSEN
}}
"""


@dataclass(frozen=True)
class Span:
    """A part of a source, as offsets into its text."""

    start: int
    end: int

    def contains(self, other: Span) -> bool:
        return self != other and self.start <= other.start and other.end <= self.end


@dataclass(frozen=True)
class Change:
    """A mutant: what is replaced, by what, and in which function; None if it is in no function."""

    name: str
    span: Span
    replacement: str
    function: Span | None
    returns: str


class DoesNotBuild(Exception):
    """The compiler complains about something else than a mutant."""


def change(mutant: dict[str, Any], source: str) -> Change:
    """A mutant as `cargo mutants --list --json` describes it."""
    function = mutant["function"]
    return Change(
        mutant["name"],
        _span(mutant["span"], source),
        mutant["replacement"],
        None if function is None else _span(function["span"], source),
        "" if function is None else function["return_type"],
    )


def _span(lines: dict[str, dict[str, int]], source: str) -> Span:
    starts = [0, *(match.end() for match in re.finditer("\n", source))]
    start, end = (starts[lines[key]["line"] - 1] + lines[key]["column"] - 1 for key in ("start", "end"))
    return Span(start, end)


def fitting(changes: list[Change], source: str) -> list[Change]:
    """Those that can be chosen when the program runs."""
    functions = {change.function for change in changes if change.function}
    nested = {inner for inner in functions if any(outer.contains(inner) for outer in functions)}
    return [
        change
        for change in changes
        if change.function
        and change.function not in nested
        and "impl " not in change.returns
        and not re.search(r"\bconst\b[^(]*\bfn\b", _head(source, change.function))
        and change.span.start > _body(source, change.function)
    ]


def _head(source: str, function: Span) -> str:
    """What stands before the body of a function, with spaces instead of comments and strings.

    The body begins at the first brace that is in no other bracket.
    """
    text = source[function.start : function.end]
    text = re.sub(r'//[^\n]*|"(?:\\.|[^"\\])*"', lambda match: " " * len(match[0]), text)
    depth = 0
    for at, character in enumerate(text):
        if character == "{" and depth == 0:
            return text[:at]
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(character, 0)
    raise ValueError(f"no body: {text}")


def _body(source: str, function: Span) -> int:
    """Where the body of a function begins."""
    return function.start + len(_head(source, function))


def combined(source: str, path: str, changes: Iterable[tuple[int, Change]]) -> tuple[str, dict[int, range]]:
    """The source with all these mutants, which have numbers, and the lines of each of them.

    Args:
        source: the unchanged source.
        path: of the module in the crate, such as `validate::claims`.
        changes: fitting ones.
    """
    by_function: dict[Span, list[tuple[int, Change]]] = {}
    for number, one in changes:
        assert one.function
        by_function.setdefault(one.function, []).append((number, one))
    text = ""
    lines: dict[int, range] = {}
    copied = 0
    for function, variants in sorted(by_function.items(), key=lambda item: item[0].start):
        body = _body(source, function)
        text += f"{source[copied:body]}{{ match crate::{path}::chosen_mutant() {{\n"
        for number, one in variants:
            first = text.count("\n") + 1
            before, after = source[body : one.span.start], source[one.span.end : function.end]
            text += f"{number} => {before}{one.replacement}{after}\n"
            lines[number] = range(first, text.count("\n") + 1)
        text += f"_ => {source[body : function.end]}\n}} }}"
        copied = function.end
    return f"{text}{source[copied:]}{CHOOSE}", lines


def build(
    tree: Path, file: str, changes: list[Change], environment: dict[str, str], profile: str
) -> tuple[Path, dict[str, int], list[str]]:
    """Build the tests of the core with all these mutants of one file. The file is unchanged afterwards.

    Args:
        tree: the workspace.
        file: below `tree`, in the sources of the core.
        changes: fitting ones.
        environment: of Cargo.
        profile: Cargo's.

    Returns:
        The program, the number of each mutant by its name, and the names of those that do not compile.

    Raises:
        DoesNotBuild: with what the compiler says.
    """
    source = (tree / file).read_text()
    path = re.sub(r"^.*/src/|\.rs$", "", file).replace("/", "::")
    left = dict(enumerate(changes, 1))
    unviable: list[str] = []
    command = [
        "cargo", "test", "--locked", "--package", "entra-core", "--lib", "--no-run", "--profile", profile,
        "--message-format", "json",
    ]  # fmt: skip
    try:
        while True:
            text, lines = combined(source, path, left.items())
            (tree / file).write_text(text)
            done = subprocess.run(
                command, cwd=tree, env=environment, check=False, capture_output=True, text=True
            )
            messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            if done.returncode == 0:
                program = next(
                    Path(message["executable"])
                    for message in messages
                    if message["reason"] == "compiler-artifact"
                    and message["target"]["name"] == "entra_core"
                    and message["executable"]
                )
                return program, {one.name: number for number, one in left.items()}, unviable
            wrong = _wrong(messages, file, lines)
            if not wrong or None in wrong:
                raise DoesNotBuild(done.stderr)
            unviable += [left.pop(number).name for number in wrong if number]
    finally:
        (tree / file).write_text(source)


def _wrong(messages: list[dict[str, Any]], file: str, lines: dict[int, range]) -> set[int | None]:
    """The mutants in whose lines the compiler found errors; with None if it found others."""
    return {
        next((number for number, those in lines.items() if _line(span, file) in those), None)
        for message in messages
        if message["reason"] == "compiler-message" and message["message"]["level"] == "error"
        for span in message["message"]["spans"]
        if span["is_primary"]
    }


def _line(span: dict[str, Any] | None, file: str) -> int:
    """The line of a place in a file, or of the call of a macro with the place; 0 if it is in another file."""
    while span and span["file_name"] != file:
        span = (span["expansion"] or {}).get("span")
    return span["line_start"] if span else 0
