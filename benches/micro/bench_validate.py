"""How fast is `validate`? Subjects and references in one session, in turns, over many distinct tokens.

What belongs here: what is timed, and nothing else; the rows and ratios are made of it by report_micro.py.
Each benchmark works through all its tokens once per round. Names are `subject[algorithm]`, the turn last:
every turn measures everything once, so that a machine that drifts disturbs all alike.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jwk as joserfc_jwk
from joserfc import jwt as joserfc_jwt

from benches import tokens as material
from benches.report_micro import COUNT, TIMES
from entra_fast.validate import Issuer, Validator

try:
    import ryjwt
except ImportError:  # it needs CPython 3.12
    ryjwt = None

TURNS = 41
ROUNDS = 1
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")

turns = pytest.mark.parametrize("turn", range(TURNS))


@pytest.fixture(scope="session")
def made() -> dict[str, material.Tokens]:
    """All tokens, made before anything is timed."""
    return {algorithm: material.make(algorithm, COUNT) for algorithm in ALGORITHMS}


def validator(made: material.Tokens, entries: int = 2 * COUNT, signatures: str = "fast") -> Validator:
    return Validator(
        material.ISSUER,
        material.AUDIENCE,
        jwks=made.jwks,
        algorithms=[made.algorithm],
        signatures=signatures,
        cache_entries=entries,
    )


class Floor:
    """The floors without Python, in a process of their own: see rust/core/examples/floor.rs."""

    def __init__(self, program: str, jwks: Path, tokens: Path) -> None:
        self._process = subprocess.Popen(
            [program, str(jwks), str(tokens)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def work(self, name: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(name + "\n")
        if self._process.stdout.readline() != "done\n":
            raise RuntimeError("the floor program failed")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)


@pytest.fixture(scope="session")
def floor(
    made: dict[str, material.Tokens], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Floor]:
    folder = tmp_path_factory.mktemp("floor")
    (folder / "jwks").write_text(made["RS256"].jwks)
    # Twenty times the tokens for little works, so that the pipe's own time vanishes.
    (folder / "tokens").write_text("\n".join(made["RS256"].tokens))
    running = Floor(request.config.getoption("--floor"), folder / "jwks", folder / "tokens")
    yield running
    running.close()


def each(judge: Callable[[Any], Any], inputs: list[Any]) -> Callable[[], None]:
    def work() -> None:
        for token in inputs:
            judge(token)

    return work


@turns
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def bench_unseen(benchmark: Any, made: dict[str, material.Tokens], algorithm: str, turn: int) -> None:
    """entra_fast, tokens not seen before: a new validator for every round, its cache in use."""

    def setup() -> tuple[tuple[Callable[[], None]], dict[str, Any]]:
        return (each(validator(made[algorithm]).validate, made[algorithm].tokens),), {}

    benchmark.pedantic(lambda work: work(), setup=setup, rounds=ROUNDS)


@turns
def bench_unseen_aws_lc(benchmark: Any, made: dict[str, material.Tokens], turn: int) -> None:
    """The same with AWS-LC alone: what rind, its confirmations included, is worth."""

    def setup() -> tuple[tuple[Callable[[], None]], dict[str, Any]]:
        one = validator(made["RS256"], signatures="aws-lc")
        return (each(one.validate, made["RS256"].tokens),), {}

    benchmark.pedantic(lambda work: work(), setup=setup, rounds=ROUNDS)


@turns
def bench_unseen_as_dict(benchmark: Any, made: dict[str, material.Tokens], turn: int) -> None:
    """The same, and every claim converted to Python."""

    def setup() -> tuple[tuple[Callable[[], None]], dict[str, Any]]:
        validate = validator(made["RS256"]).validate
        return (each(lambda token: validate(token).as_dict(), made["RS256"].tokens),), {}

    benchmark.pedantic(lambda work: work(), setup=setup, rounds=ROUNDS)


@turns
def bench_seen(benchmark: Any, made: dict[str, material.Tokens], turn: int) -> None:
    """entra_fast, tokens seen before."""
    validate = validator(made["RS256"]).validate
    work = each(validate, made["RS256"].tokens)
    work()
    benchmark.pedantic(work, rounds=ROUNDS, iterations=20)


def validator_of_several(made: material.Tokens) -> Validator:
    """The issuer of the tokens is the second of two."""
    return Validator(
        audience=material.AUDIENCE,
        issuers=[
            Issuer(issuer="https://another.example", jwks=made.jwks),
            Issuer(issuer=material.ISSUER, jwks=made.jwks),
        ],
        cache_entries=4 * COUNT,
    )


@turns
def bench_seen_of_several(benchmark: Any, made: dict[str, material.Tokens], turn: int) -> None:
    """entra_fast, tokens seen before, with two issuers."""
    work = each(validator_of_several(made["RS256"]).validate, made["RS256"].tokens)
    work()
    benchmark.pedantic(work, rounds=ROUNDS, iterations=20)


@turns
def bench_unseen_of_several(benchmark: Any, made: dict[str, material.Tokens], turn: int) -> None:
    """entra_fast, tokens not seen before, with two issuers."""

    def setup() -> tuple[tuple[Callable[[], None]], dict[str, Any]]:
        return (each(validator_of_several(made["RS256"]).validate, made["RS256"].tokens),), {}

    benchmark.pedantic(lambda work: work(), setup=setup, rounds=ROUNDS)


@turns
def bench_two_threads(benchmark: Any, made: dict[str, material.Tokens], turn: int) -> None:
    """entra_fast, unseen tokens, all of them on each of two threads at once, nothing cached: long enough
    that what is measured is validating, and not how soon a new thread gets a core."""
    validate = validator(made["RS256"], entries=0).validate
    tokens = made["RS256"].tokens * TIMES

    def work() -> None:
        other = threading.Thread(target=each(validate, tokens))
        other.start()
        each(validate, tokens)()
        other.join()

    benchmark.pedantic(work, rounds=ROUNDS)


@turns
def bench_two_processes(benchmark: Any, made: dict[str, material.Tokens], turn: int) -> None:
    """The same in two processes, which share nothing: what the machine's cores give at that moment."""
    judge = validator(made["RS256"], entries=0).validate
    work = each(judge, made["RS256"].tokens * TIMES)
    go, going = multiprocessing.Pipe()

    def other() -> None:
        while going.recv():
            work()
            going.send(True)

    process = multiprocessing.get_context("fork").Process(target=other)
    process.start()

    def both() -> None:
        go.send(True)
        work()
        go.recv()

    benchmark.pedantic(both, rounds=ROUNDS)
    go.send(False)
    process.join()


@turns
def bench_one_thread(benchmark: Any, made: dict[str, material.Tokens], turn: int) -> None:
    """What bench_two_threads is compared with: the same validator on one thread."""
    work = each(validator(made["RS256"], entries=0).validate, made["RS256"].tokens)
    benchmark.pedantic(work, rounds=ROUNDS, iterations=TIMES)


@turns
def bench_many(benchmark: Any, made: dict[str, material.Tokens], turn: int) -> None:
    """entra_fast, `validate_many` on all cores, nothing cached."""
    judge = validator(made["RS256"], entries=0).validate_many
    benchmark.pedantic(lambda: judge(made["RS256"].tokens), rounds=ROUNDS)


@turns
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def bench_pyjwt(benchmark: Any, made: dict[str, material.Tokens], algorithm: str, turn: int) -> None:
    """PyJWT with a prepared key, checking the same claims."""
    key = jwt.PyJWK(made[algorithm].public_jwk)

    def judge(token: str) -> None:
        jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=material.AUDIENCE,
            issuer=material.ISSUER,
            options={"require": ["exp", "iat", "iss", "aud"]},
        )

    benchmark.pedantic(each(judge, made[algorithm].tokens[: COUNT // 4]), rounds=ROUNDS)


@turns
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def bench_joserfc(benchmark: Any, made: dict[str, material.Tokens], algorithm: str, turn: int) -> None:
    """joserfc with a prepared key, checking the same claims."""
    key = joserfc_jwk.import_key({**made[algorithm].public_jwk})
    registry = joserfc_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": material.ISSUER},
        aud={"essential": True, "value": material.AUDIENCE},
        exp={"essential": True},
    )

    def judge(token: str) -> None:
        registry.validate(joserfc_jwt.decode(token, key, algorithms=[algorithm]).claims)

    benchmark.pedantic(each(judge, made[algorithm].tokens[: COUNT // 4]), rounds=ROUNDS)


@turns
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def bench_ryjwt(benchmark: Any, made: dict[str, material.Tokens], algorithm: str, turn: int) -> None:
    """ryjwt with a prepared key set, checking the same claims."""
    if ryjwt is None:
        pytest.skip(f"ryjwt needs CPython 3.12 or newer, this is {sys.version.split()[0]}")
    key = ryjwt.PublicKey.from_jwks(
        made[algorithm].jwks, algorithms=[algorithm], audience=material.AUDIENCE, issuer=material.ISSUER
    )
    benchmark.pedantic(each(key.decode, made[algorithm].tokens), rounds=ROUNDS)


@turns
def bench_cryptography_raw(benchmark: Any, made: dict[str, material.Tokens], turn: int) -> None:
    """`cryptography` verifying nothing but the signatures, prepared key, everything decoded beforehand."""
    key: Any = jwt.PyJWK(made["RS256"].public_jwk).key
    split = [token.rsplit(".", 1) for token in made["RS256"].tokens]
    signed = [(message.encode(), jwt.utils.base64url_decode(signature)) for message, signature in split]
    scheme, digest = padding.PKCS1v15(), hashes.SHA256()

    def judge(pair: tuple[bytes, bytes]) -> None:
        key.verify(pair[1], pair[0], scheme, digest)

    benchmark.pedantic(each(judge, signed), rounds=ROUNDS)


@turns
@pytest.mark.parametrize("work", ["raw", "confirmed", "unconfirmed", "verify", "sha256"])
def bench_floor(benchmark: Any, floor: Floor, work: str, turn: int) -> None:
    """The floors from Rust: the signature by AWS-LC, by rind with confirmation and without; the core's whole
    verification; SHA-256 of the token."""
    repeats = 20 if work == "sha256" else 1
    benchmark.pedantic(floor.work, args=(work,), rounds=ROUNDS, iterations=repeats)
