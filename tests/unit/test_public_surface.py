"""What is public, and that it changes by decision only: names and signatures as in public_surface.txt."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

import entra_fast

TOOL = Path(__file__).resolve().parents[1] / "tools" / "public_surface.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("public_surface", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_public_surface_is_the_committed_one(tool: ModuleType) -> None:
    """A new, changed or missing name or signature fails until `make public-surface` has recorded it."""
    committed, now = tool.COMMITTED.read_text(), tool.surface()
    difference = difflib.unified_diff(committed.splitlines(), now.splitlines(), "committed", "now", n=0)
    assert list(difference) == []


def test_every_module_is_public_private_or_part_of_an_application(tool: ModuleType) -> None:
    """A module that is none of the three looks public and is not: give it an underscore, or list it."""
    parts_of_applications = tuple(f"{name}." for name in (*tool.APPLICATIONS, "entra_fast.emulator"))
    unclear = [
        name
        for name in _modules()
        if name not in tool.PUBLIC
        and not any(part.startswith("_") for part in name.split("."))
        and name not in tool.APPLICATIONS
        and not name.startswith(parts_of_applications)
    ]
    assert unclear == []


def test_public_modules_list_their_names(tool: ModuleType) -> None:
    """Each has an `__all__` in which every name exists, and none is private."""
    for name in tool.PUBLIC:
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
