"""Writes the reference pages that follow from the code: docs/reference/cli.md and docs/reference/python/.

What belongs here: the shape of these pages. Every word of the command line's page is in its parser, and the
pages of the Python interface only say which object stands where: mkdocstrings fills them in when the site is
built. Run `make docs-reference` after a change; tests/docs/test_site.py fails until then.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entra_fast.cli.main import _parser
from tools.public_surface import PUBLIC

REFERENCE = Path(__file__).resolve().parents[1] / "reference"
GENERATED = "<!-- Written by docs/tools/reference.py: make docs-reference -->\n"


def files() -> dict[Path, str]:
    """All generated pages with their text."""
    return {REFERENCE / "cli.md": command_line(_parser()), **python_pages()}


# --- the command line ---------------------------------------------------------------------------------------


def command_line(parser: argparse.ArgumentParser) -> str:
    """The page of the command line, from the parser alone."""
    commands = _commands(parser)
    summaries = {one.dest: one.help for one in commands._choices_actions}
    lines = [
        GENERATED + "# Command line",
        _sentence(parser.description),
        "Tokens are also read from standard input, which keeps them out of the shell's history.",
        "| command | what it does |\n|---|---|\n"
        + "\n".join(
            f"| [`{name}`](#{_anchor(name)}) | {_cell(summaries[name])} |" for name in commands.choices
        ),
    ]
    lines += _epilog(parser.epilog)
    for name, command in commands.choices.items():
        lines += _command(name, command, level=2)
    return "\n\n".join(lines) + "\n"


def _commands(parser: argparse.ArgumentParser) -> Any:
    return next(one for one in parser._actions if isinstance(one, argparse._SubParsersAction))


def _command(name: str, parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}"
    yield _sentence(parser.description)
    for group in parser._action_groups:
        rows = [row for one in group._group_actions for row in _rows(one, parser.prog)]
        if rows:
            title = "argument" if group.title == "positional arguments" else group.title
            yield f"| {title if title != 'options' else 'option'} | description |\n|---|---|\n" + "\n".join(
                rows
            )
    yield from _epilog(parser.epilog)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child, command in action.choices.items():
                yield from _command(f"{name} {child}", command, level + 1)


def _rows(action: argparse.Action, program: str) -> Iterator[str]:
    if isinstance(action, argparse._SubParsersAction):
        for choice in action._choices_actions:
            yield f"| `{choice.dest}` | {_cell(choice.help)} |"
    elif action.help is not argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
        yield _row(action, program)


def _row(action: argparse.Action, program: str) -> str:
    value = action.metavar if isinstance(action.metavar, str) else (action.dest if action.nargs != 0 else "")
    if not action.option_strings:
        written = str(value)
    elif action.choices is not None and action.metavar is None:
        written = f"{', '.join(action.option_strings)} {{{','.join(map(str, action.choices))}}}"
    elif action.nargs == 0:
        written = ", ".join(action.option_strings)
    else:
        optional = f"[{value}]" if action.nargs == "?" else value if action.metavar else str(value).upper()
        written = f"{', '.join(action.option_strings)} {optional}"
    text = (action.help or "") % {**vars(action), "prog": program}
    return f"| `{_cell(written)}` | {_cell(text)} |"


def _epilog(epilog: str | None) -> Iterator[str]:
    """Its paragraphs: a title with indented lines is a block, everything else is prose."""
    for paragraph in (epilog or "").strip("\n").split("\n\n"):
        title, _, body = paragraph.partition("\n")
        if body and title.endswith(":") and all(line.startswith("  ") for line in body.splitlines()):
            yield f"{title[0].upper()}{title[1:]}\n\n```text\n{inspect.cleandoc(body)}\n```"
        elif paragraph:
            yield _sentence(paragraph)


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split()).replace("<", "&lt;")


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _anchor(name: str) -> str:
    return name.lower()


# --- the Python interface -----------------------------------------------------------------------------------


def python_pages() -> dict[Path, str]:
    """One page for each public module, and the list of them."""
    homes: dict[Any, str] = {}
    pages: dict[Path, str] = {}
    rows = []
    for name in PUBLIC:
        module = importlib.import_module(name)
        intro = _intro(module)
        rows.append(f"| [`{name}`]({name}.md) | {intro} |")
        own: list[tuple[str, str]] = []
        others: list[tuple[str, str]] = []
        for public in module.__all__:
            home = homes.setdefault(_key(module, public), name)
            (own if home == name else others).append((public, home))
        lines = [GENERATED + f"# {name}", intro]
        lines += [f"::: {name}.{public}" for public, _ in own]
        if others:
            links = ", ".join(f"[`{public}`]({home}.md#{home}.{public})" for public, home in others)
            lines.append(f"## Also in this module\n\n{links}.")
        if not own and not others:
            inside = [one for one in PUBLIC if one.startswith(f"{name}.")]
            lines.append("\n".join(f"- [`{one}`]({one}.md)" for one in inside))
        pages[REFERENCE / "python" / f"{name}.md"] = "\n\n".join(lines) + "\n"
    index = [
        GENERATED + "# Python",
        "The public interface: what `__all__` lists in these modules. The rest can change in any release.",
        "| module | for |\n|---|---|\n" + "\n".join(rows),
    ]
    pages[REFERENCE / "python" / "index.md"] = "\n\n".join(index) + "\n"
    return pages


def _key(module: Any, name: str) -> Any:
    """The same object in two modules has one page; values that are equal by chance are told apart by name."""
    value = getattr(module, name)
    return id(value) if inspect.isclass(value) or inspect.isroutine(value) else name


def _intro(module: Any) -> str:
    """The first paragraph of the docstring, as prose."""
    text = inspect.cleandoc(module.__doc__ or "").split("\n\n")[0]
    return " ".join(text.split()).removeprefix(f"{module.__name__}: ").replace("|", "\\|")


def main() -> None:
    """Write what has changed, and remove pages of modules that are gone."""
    made = files()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in (REFERENCE / "python").glob("*.md"):
        if path not in made:
            path.unlink()


if __name__ == "__main__":
    main()
