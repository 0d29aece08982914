"""Bringing a mutant into a process that has imported the module, and everything that uses it, already.

What belongs here: replacing the code of functions, and the values of constants, in place, so that every
module that has imported them sees the mutant.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

from mutants.python.mutations import Mutant

SIMPLE = (int, float, str, bytes, tuple, frozenset, bool, type(None))


class CannotBeApplied(Exception):
    """The mutant cannot be brought into a running process, as when a function no longer calls `super()`."""


def module_name(path: str) -> str:
    """`_provider/retry.py` -> `entra_fast._provider.retry`"""
    return "entra_fast." + path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def apply(mutant: Mutant) -> None:
    """Raises: whatever the mutant raises when it is imported."""
    real = sys.modules[module_name(mutant.module)]
    changed = types.ModuleType(real.__name__)
    changed.__dict__.update(
        __package__=real.__package__, __file__=real.__file__, __path__=getattr(real, "__path__", None)
    )
    exec(compile(mutant.source, str(real.__file__), "exec"), changed.__dict__)
    for name, new in vars(changed).items():
        old = vars(real).get(name)
        if isinstance(new, type) and isinstance(old, type) and new.__module__ == real.__name__:
            _replace_in_class(old, new)
        elif callable(new) and getattr(new, "__module__", None) == real.__name__:
            _replace_functions(old, new)
        elif name == mutant.place or (isinstance(new, SIMPLE) and not name.startswith("__") and new != old):
            _rebind(name, old, new)


def _rebind(name: str, old: Any, new: Any) -> None:
    """Everywhere where the constant was imported, in tests too."""
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(name, _rebind) is old:
            setattr(module, name, new)


def _replace_in_class(old: type, new: type) -> None:
    for name, value in vars(new).items():
        before = vars(old).get(name)
        if (
            isinstance(value, type)
            and isinstance(before, type)
            and value.__qualname__.startswith(new.__qualname__)
        ):
            _replace_in_class(before, value)
        elif isinstance(value, SIMPLE) and not name.startswith("__") and value != before:
            setattr(old, name, value)
        else:
            _replace_functions(before, value)


def _replace_functions(old: Any, new: Any) -> None:
    if hasattr(old, "cache_clear"):
        old.cache_clear()
    for before, after in zip(_functions(old), _functions(new), strict=False):
        try:
            before.__code__ = after.__code__
        except ValueError as error:
            raise CannotBeApplied(before.__qualname__) from error
        before.__defaults__ = after.__defaults__
        before.__kwdefaults__ = after.__kwdefaults__


def _functions(value: Any) -> Iterator[types.FunctionType]:
    """The functions that a property, a static method or a decorated function stands for."""
    if isinstance(value, types.FunctionType):
        if hasattr(value, "__wrapped__"):
            yield from _functions(value.__wrapped__)
        else:
            yield value
    elif isinstance(value, property):
        for part in (value.fget, value.fset, value.fdel):
            yield from _functions(part)
    elif isinstance(value, staticmethod | classmethod):
        yield from _functions(value.__func__)
    elif hasattr(value, "func") and not isinstance(value, type):  # functools.cached_property
        yield from _functions(value.func)
    elif hasattr(value, "__wrapped__") and not isinstance(value, type):  # functools.lru_cache
        yield from _functions(value.__wrapped__)
