"""Order of the micro benchmarks: turn by turn, and within a turn what is compared side by side.

On a shared machine, speed changes by half from one moment to the next. A ratio of two that
were measured one after the other is right unless it changed just between them; the median of many is right.
"""

from __future__ import annotations

from typing import Any

import pytest

SIDE_BY_SIDE = (
    "bench_cryptography_raw",
    "bench_joserfc",
    "bench_pyjwt",
    "bench_unseen_as_dict",
    "bench_ryjwt",
    "bench_unseen_aws_lc",
    "bench_unseen",
    "bench_floor",
    "bench_seen",
    "bench_seen_of_several",
    "bench_unseen_of_several",
    "bench_many",
    "bench_one_thread",
    "bench_two_threads",
    "bench_two_processes",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--floor", required=True, help="the program made of rust/core/examples/floor.rs")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    def place(item: Any) -> tuple[int, str, int]:
        parameters = item.callspec.params
        # RS256 comes last: next to it are the benchmarks that know no other algorithm.
        algorithm = parameters.get("algorithm", "RS256").replace("RS256", "~")
        return parameters["turn"], algorithm, SIDE_BY_SIDE.index(item.originalname)

    items.sort(key=place)
