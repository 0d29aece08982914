"""One side of `benches.compare`: times `validate` in the interpreter that runs this file.

It uses only the public library, so that it runs against every version that is installed for its
interpreter. The tokens come from a file; each line on standard input names a row, each line on standard
output is its time in microseconds per token.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entra_fast.validate import Validator

SEEN_PASSES = 20
"""Passes over the tokens of a row that takes about a microsecond per token."""


def validator(made: dict[str, Any], *, cache_entries: int | None = None) -> Validator:
    """A new validator, with nothing in its cache."""
    return Validator(
        made["issuer"],
        made["audience"],
        jwks=made["jwks"],
        algorithms=[made["algorithm"]],
        cache_entries=2 * len(made["tokens"]) if cache_entries is None else cache_entries,
    )


def timed(work: Callable[[], object], count: int) -> float:
    """Microseconds per token."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e6 / count


def measure(row: str, made: dict[str, Any]) -> float:
    """Time one row once."""
    tokens: list[str] = made["tokens"]
    match row:
        case "never seen":
            validate = validator(made).validate
            return timed(lambda: [validate(token) for token in tokens], len(tokens))
        case "never seen, claims as dict":
            validate = validator(made).validate
            return timed(lambda: [validate(token).as_dict() for token in tokens], len(tokens))
        case "seen before":
            validate = validator(made).validate
            for token in tokens:
                validate(token)
            passes = range(SEEN_PASSES)
            return timed(
                lambda: [validate(token) for _ in passes for token in tokens], SEEN_PASSES * len(tokens)
            )
        case "validate_many":
            many = validator(made, cache_entries=0).validate_many
            return timed(lambda: many(tokens), len(tokens))
    raise ValueError(f"unknown row {row!r}")


def main() -> None:
    """Answer one row per line until the input ends."""
    everything: dict[str, dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text())
    for line in sys.stdin:
        algorithm, _, row = line.strip().partition(" ")
        print(measure(row, everything[algorithm]), flush=True)


if __name__ == "__main__":
    main()
