"""What is public, and that it changes by decision only: names and signatures as in public_surface.txt."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import entra_fast
from tools import public_surface


def test_the_public_surface_is_the_committed_one() -> None:
    """A new, changed or missing name or signature fails until `make public-surface` has recorded it."""
    committed, now = public_surface.COMMITTED.read_text(), public_surface.surface()
    difference = difflib.unified_diff(committed.splitlines(), now.splitlines(), "committed", "now", n=0)
    assert list(difference) == []


def test_every_module_is_public_private_or_part_of_an_application() -> None:
    """A module that is none of the three looks public and is not: give it an underscore, or list it."""
    packages = (*public_surface.APPLICATIONS, "entra_fast.emulator")
    unclear = [
        name
        for name in _modules()
        if name not in public_surface.PUBLIC
        and not any(part.startswith("_") for part in name.split("."))
        and name not in public_surface.APPLICATIONS
        and not name.startswith(tuple(f"{package}." for package in packages))
    ]
    assert unclear == []


def test_public_modules_list_their_names() -> None:
    """Each has an `__all__` in which every name exists, and none is private."""
    for name in public_surface.PUBLIC:
        module = importlib.import_module(name)
        names = module.__all__
        assert sorted(set(names)) == sorted(names), name
        assert [one for one in names if not hasattr(module, one)] == [], name
        assert [one for one in names if one.startswith("_") and one != "__version__"] == [], name


@pytest.mark.parametrize("name", ["cli", "sidecar", "generator"])
def test_applications_say_that_they_are_no_interface(name: str) -> None:
    """Their docstrings tell readers that the Python names in them can change."""
    package = importlib.import_module(f"entra_fast.{name}")
    assert "An application: its Python modules are not public." in " ".join((package.__doc__ or "").split())


def _modules() -> list[str]:
    found = pkgutil.walk_packages(entra_fast.__path__, "entra_fast.")
    return ["entra_fast", *(module.name for module in found)]


def test_the_page_on_the_architecture_lists_the_public_modules() -> None:
    """docs/explanation/architecture.md has a row for each, and for no other."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "explanation" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(entra_fast[\w.]*)` \|", page, re.MULTILINE)
    assert rows == list(public_surface.PUBLIC)
