"""The native core, as Python sees it (rust/py binds rust/core). Checked against the module by stubtest.

Times are seconds: `now` is seconds since the epoch (wall clock), `monotonic` is seconds of a monotonic
clock; where they may be left out, the native module reads the clock itself.
"""

from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from typing import Any, final

from entra_fast.errors import EntraFastError

__all__ = [
    "ALGORITHMS",
    "ERROR_CODES",
    "MAX_TOKEN_BYTES",
    "AccessLog",
    "Claims",
    "FastLane",
    "Grant",
    "GrantCache",
    "KeySet",
    "LaneReceiver",
    "Policy",
    "SigningKey",
    "Verifier",
    "__version__",
    "cache_key",
    "distrust_fast_signatures",
    "grant_key",
    "parse_json",
    "sha256",
    "signature_figures",
    "unverified_claims",
    "unverified_header",
    "when_fast_signatures_are_distrusted",
]

__version__: str
ERROR_CODES: dict[str, str]
"""Every code that InvalidToken can carry, with the sentence it starts from."""

ALGORITHMS: tuple[str, ...]
"""The closed set of signature algorithms (RFC 7518, section 3.1; RFC 8037)."""

MAX_TOKEN_BYTES: int
"""Default limit of a token's size in bytes; a longer one is refused before it is parsed."""

def cache_key(subject_token: str, scope: str) -> str:
    """sha256(subject_token + scope) in lower-case hex: for people who keep their own token cache."""

def grant_key(purpose: str, parts: Sequence[str]) -> bytes:
    """SHA-256 over a purpose and length-prefixed parts: the internal cache key, free of collisions by
    construction. 32 bytes."""

def sha256(data: bytes) -> bytes:
    """SHA-256 of bytes. 32 bytes."""

def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON as the json module would, but refuse duplicate members, lone surrogates, NaN, a byte
    order mark and deep nesting. Raises ValueError with a reason that repeats nothing of the text."""

def unverified_header(token: str | bytes) -> dict[str, Any]:
    """The header of a token that nobody has verified. Never decide anything by it.

    Raises InvalidToken when it is not a JWT."""

def unverified_claims(token: str | bytes) -> dict[str, Any]:
    """The claims of a token that nobody has verified. Never decide anything by them.

    Raises InvalidToken when it is not a JWT."""

def signature_figures() -> dict[str, int]:
    """Of this process: how often AWS-LC `agreed` and `disagreed` with the fast library, and whether that
    library may be used (`fast`, a bool)."""

def distrust_fast_signatures() -> None:
    """Verify with AWS-LC alone from now on, in this process. What the fast library alone has verified is
    verified again."""

def when_fast_signatures_are_distrusted(callback: Callable[[], object]) -> None:
    """Call this when the fast library is no longer trusted: once, on the thread that has ended the trust. The
    first callback stays."""

@final
class Claims(Mapping[str, Any]):
    """The claims of a verified token: a read-only mapping, with typed helpers."""

    @property
    def is_app(self) -> bool:
        """Machine-to-machine: Entra ID writes `idtyp` `app` if and only if no user is behind the token."""
    @property
    def roles(self) -> tuple[str, ...]:
        """Application roles (`roles`)."""
    @property
    def scopes(self) -> tuple[str, ...]:
        """Delegated permissions (the words of `scp`)."""
    @property
    def groups(self) -> tuple[str, ...]:
        """Object ids of the user's groups (`groups`). Empty also where there were too many: see
        `has_groups_overage`."""
    @property
    def has_groups_overage(self) -> bool:
        """True where Entra ID left the groups out because there are too many: then absence says nothing, and
        Microsoft Graph has to be asked."""
    @property
    def expires_at(self) -> float:
        """`exp`, in seconds since the epoch."""
    @property
    def issued_at(self) -> float | None:
        """`iat`, in seconds since the epoch."""
    @property
    def tenant_id(self) -> str | None:
        """The tenant (`tid`)."""
    @property
    def object_id(self) -> str | None:
        """The user or service principal (`oid`)."""
    @property
    def authorized_party(self) -> str | None:
        """Client id of the application that asked for the token (`azp`, in v1.0 tokens `appid`)."""
    @property
    def name(self) -> str | None:
        """The user's display name (`name`). For showing, not for deciding."""
    def require(self, *, role: str | None = None, scope: str | None = None, group: str | None = None) -> None:
        """Raise Forbidden unless the token has all that is named: a role, a scope, a group. At least one
        must be: a name that is None because a setting is missing must not let everybody in (`TypeError`)."""
    def as_dict(self) -> dict[str, Any]:
        """All claims as a new dict."""
    def as_json(self) -> str:
        """The claims' JSON text, exactly as it was signed."""
    def __copy__(self) -> Claims: ...
    def __deepcopy__(self, _memo: object, /) -> Claims: ...
    def __getitem__(self, name: str, /) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __contains__(self, name: object, /) -> bool: ...
    def keys(self) -> KeysView[str]: ...
    def get(self, name: str, default: Any = None, /) -> Any: ...

@final
class KeySet:
    """An immutable set of public keys, from the text of a JWKS (RFC 7517). Entries that cannot be used for
    verification are dropped and counted, so that one bad entry does not take the good ones with it."""

    def __new__(cls, jwks: str | bytes) -> KeySet: ...
    @property
    def kids(self) -> tuple[str | None, ...]: ...
    @property
    def dropped(self) -> tuple[tuple[str | None, str], ...]:
        """(kid, reason) of each entry that was not taken."""
    def __len__(self) -> int: ...

@final
class Policy:
    """What a token must be to be accepted; complete when constructed, and immutable.

    Defaults: `algorithms` RS256; `required_claims` iat (iss, aud and exp are always required). `tenants`:
    allowed tenant ids, or ("*",) for any; needed when an issuer holds `{tenantid}`. `signatures`: "fast"
    lets rind verify RS256 and PS256, "aws-lc" is AWS-LC alone. Raises ConfigurationError."""

    def __new__(
        cls,
        *,
        issuers: Iterable[str],
        audiences: Iterable[str],
        algorithms: Iterable[str] | None = None,
        tenants: Iterable[str] | None = None,
        leeway: float = 60.0,
        required_claims: Iterable[str] | None = None,
        max_age: float | None = None,
        max_token_bytes: int = 65536,
        signatures: str = "fast",
    ) -> Policy: ...

@final
class Verifier:
    """One policy, the current key set and the bounded cache of tokens already verified. Thread-safe."""

    def __new__(
        cls,
        policy: Policy,
        keys: KeySet | None = None,
        *,
        cache_entries: int = 20_000,
        cache_bytes: int = 134_217_728,
    ) -> Verifier: ...
    @property
    def keys(self) -> KeySet | None: ...
    def set_keys(self, keys: KeySet | None) -> None:
        """Swap the key set atomically; verdicts reached with a key that is gone die with it."""
    def validate(self, token: str | bytes, now: float | None = None) -> Claims:
        """The claims, or InvalidToken. Code `unknown_key` asks for a refresh of the key set."""
    def validate_many(
        self, tokens: Sequence[str | bytes], now: float | None = None
    ) -> list[Claims | EntraFastError]:
        """Validate on all cores with the GIL released; results in order, failures as values."""
    def introspect(self, token: str | bytes, now: float | None = None) -> bytes:
        """The JSON body of an introspection answer (contract.md): `{"active":true,...claims verbatim}`.
        Raises InvalidToken like validate."""
    def explain(self, token: str | bytes, now: float | None = None) -> list[dict[str, Any]]:
        """Each check in turn: check, passed (None: could not be made), value, code, message, expected,
        actual."""
    def stats(self) -> dict[str, int]:
        """cache_entries, cache_bytes, cache_hits, cache_misses, cache_evictions."""

@final
class SigningKey:
    """A private key that signs: client assertions in the sidecar, tokens in the local Entra ID."""

    @staticmethod
    def from_jwk(jwk: str | bytes) -> SigningKey:
        """A private JWK (RSA, EC P-256/P-384, OKP Ed25519). Raises ConfigurationError (code
        `signing_key_invalid`) with a sentence that never contains key material."""
    @property
    def kid(self) -> str | None: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def x5t(self) -> str | None: ...
    @property
    def x5t_s256(self) -> str | None: ...
    def sign(self, header: bytes, payload: bytes) -> str:
        """Compact JWS over exactly these bytes; `header` must be JSON whose `alg` is `self.algorithm`."""

@final
class Grant:
    """A cached token, ready to be handed out."""

    @property
    def access_token(self) -> str: ...
    @property
    def token_type(self) -> str: ...
    @property
    def expires_in(self) -> int:
        """Whole seconds that the token has left, rounded down, at the time of the call that found it."""
    @property
    def renewal_due(self) -> bool:
        """True when the token should be renewed behind the caller's back. True for one caller only per
        renewal: the first that finds it due; `GrantCache.renewal_failed` arms it anew."""

@final
class GrantCache:
    """Bounded cache of acquired and exchanged tokens, by entries and by bytes. Thread-safe.

    Lifetimes run on the monotonic clock, so that a jump of the wall clock neither resurrects nor kills a
    token; the subject token's own end is a wall-clock time."""

    def __new__(cls, *, max_entries: int = 100_000, max_bytes: int = 268_435_456) -> GrantCache: ...
    def put(
        self,
        key: bytes,
        access_token: str,
        expires_in: float,
        *,
        monotonic: float,
        renew_in: float | None = None,
        subject_expires_at: float | None = None,
    ) -> None:
        """Remember a token that lives `expires_in` seconds from `monotonic`. `renew_in`: seconds until
        renewal is due (default: by the rule of contract.md; the caller spreads it). A token of no remaining
        life is not kept."""
    def get(self, key: bytes, *, monotonic: float, now: float) -> Grant | None:
        """The token, unless it is within its safety margin (120 s before its end; half of its life if that is
        240 s or less) or its subject token has expired."""
    def get_stale(self, key: bytes, *, monotonic: float, now: float) -> Grant | None:
        """Like get, but inside the safety margin too: as long as the token is still valid. For when the
        provider fails."""
    def renewal_failed(self, key: bytes, *, monotonic: float, retry_in: float) -> None:
        """Arm the entry's renewal anew, `retry_in` seconds from `monotonic`."""
    def remove(self, key: bytes) -> None: ...
    def render(self, key: bytes, *, monotonic: float, now: float) -> tuple[bytes, bool] | None:
        """(the whole JSON body of contract.md, renewal_due), or None as get."""
    def stats(self) -> dict[str, int]:
        """entries, bytes, hits, misses, evictions, expired."""

@final
class AccessLog:
    """Collects the lines of the access log, and writes them to standard error in pieces of whole lines, of 64
    KiB at most. `worker`: the number of this process, where several serve as one; pieces are then no larger
    than what a pipe that they share takes as a whole. What cannot be written is lost."""

    def __new__(cls, *, worker: int | None = None) -> AccessLog: ...
    def add(self, method: str, path: str, status: int, seconds: float) -> None:
        """A line for one request, as of now."""
    def flush(self) -> None:
        """Write what waits."""

@final
class FastLane:
    """Answers plain HTTP/1.1 requests of one sidecar from its caches: see rust/core/src/fastlane.rs.

    `bounds`: of the buckets of durations, in seconds. `access_log`: gets a line for each answer.
    `tracing`: decline requests whose `traceparent` is sampled. `clocks`: (wall, monotonic), in seconds; those
    of the system if there are none."""

    def __new__(
        cls,
        grants: GrantCache,
        *,
        tenant: str,
        client_id: str,
        allowed_hosts: Sequence[str],
        bounds: Sequence[float],
        access_log: AccessLog | None = None,
        tracing: bool = False,
        clocks: tuple[Callable[[], float], Callable[[], float]] | None = None,
    ) -> FastLane: ...
    def attach(self, verifier: Verifier) -> None:
        """Introspect with this verifier from now on. The first one stays."""
    def refuse_unknown_keys_until(self, monotonic: float) -> None:
        """Until then tokens of unknown keys are answered here, because nothing fetches keys for them."""
    def serve(
        self, data: bytes, waited: float = 0.0
    ) -> bytes | tuple[bytes, int, int, str, int, list[tuple[str, str | None]]]:
        """Answer what can be answered of the bytes that a connection has. For exactly one whole request the
        answer's bytes; else (answers, how many there are, bytes consumed, why it stopped, a number,
        renewals). It stopped because everything is `done`; the rest is `partial` (number: bytes of the whole
        request, or 0); the next request is `framed` but not for the lane (number: its bytes); the same, but
        new keys would make it one for the lane (`key_needed`); the rest is `unknown`; or so many answers are
        there (`full`) that the rest was not looked at. Each renewal is (target, subject token or None).
        `waited`: seconds that the bytes have waited before, for the metrics."""
    def durations(self) -> dict[str, tuple[list[int], float]]:
        """By endpoint: (counts in the buckets of `bounds` and one more, seconds in all)."""
    def introspections(self) -> tuple[int, int]:
        """How many introspections were answered with an active, and with an inactive token."""

@final
class LaneReceiver:
    """What the transport of one connection gives its bytes to.

    While the connection is at rest, one plain request is answered here, without a step of Python. Everything
    else goes to `otherwise`: the bytes, and what `lane` said (see `FastLane.serve`), or None where it was not
    asked."""

    def __new__(cls, lane: FastLane, otherwise: Callable[[bytes, Any], None]) -> LaneReceiver: ...
    def connect(self, write: Callable[[bytes], None]) -> None:
        """Write answers there from now on. The first one stays."""
    at_rest: bool
    """Whether it is the lane's turn."""

    @property
    def answered_at(self) -> float:
        """When a request was answered here last, in seconds of the monotonic clock; 0 before the first."""
    @property
    def answered(self) -> int:
        """How many requests were answered here."""
    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol.data_received."""
