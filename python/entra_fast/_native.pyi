"""The native core, as Python sees it (rust/py binds rust/core). Checked against the module by stubtest.

Times are seconds: `now` is seconds since the epoch (wall clock), `monotonic` is seconds of a monotonic
clock; where they may be left out, the native module reads the clock itself.
"""

from collections.abc import Callable, Coroutine, Iterable, Iterator, KeysView, Mapping, Sequence
from typing import Any, ClassVar, Unpack, final, overload

from entra_fast._groups import AsyncUserTokenSource, GroupOptions, UserTokenSource
from entra_fast.errors import EntraFastError
from entra_fast.require import Conditions, Require

__all__ = [
    "ALGORITHMS",
    "ENDPOINT_PATHS",
    "ERROR_CODES",
    "MAX_BODY_BYTES",
    "MAX_CLAIMS_BYTES",
    "MAX_DETAILS_BYTES",
    "MAX_PROVIDERS",
    "MAX_RESOURCES",
    "MAX_RESOURCE_BYTES",
    "MAX_TOKEN_BYTES",
    "RUST_VERSION",
    "AccessLog",
    "Agent",
    "CachedToken",
    "CallerCheck",
    "Claims",
    "FastPath",
    "FastPathReceiver",
    "KeySet",
    "Policy",
    "Provider",
    "Providers",
    "Served",
    "SigningKey",
    "SpanRecorder",
    "Stop",
    "TokenCache",
    "Validator",
    "__version__",
    "cache_key",
    "distrust_fast_signatures",
    "head_refusal",
    "host_name",
    "is_form",
    "is_loopback_host",
    "is_own_page",
    "monotonic_clock",
    "parse_form",
    "parse_json",
    "scope_for",
    "sha256",
    "signature_figures",
    "token_cache_key",
    "transfer_coding_refusal",
    "unverified_agent",
    "unverified_claims",
    "unverified_header",
    "unverified_issuer",
    "when_fast_signatures_are_distrusted",
]

RUST_VERSION: str
"""Of the compiler that built this module."""
__version__: str
ERROR_CODES: dict[str, str]
"""Every code that InvalidToken can carry, with the sentence it starts from."""

ALGORITHMS: tuple[str, ...]
"""The closed set of signature algorithms (RFC 7518, section 3.1; RFC 8037; RFC 9864; RFC 9964)."""

MAX_TOKEN_BYTES: int
"""Default limit of a token's size in bytes; a longer one is refused before it is parsed."""

def cache_key(subject_token: str, scope: str) -> str:
    """sha256(subject_token + scope) in lower-case hex, for programs that keep a token cache of their own."""

def token_cache_key(purpose: str, parts: Sequence[str]) -> bytes:
    """SHA-256 over a purpose and length-prefixed parts: the internal cache key, free of collisions by
    construction. 32 bytes."""

def sha256(data: bytes) -> bytes:
    """SHA-256 of bytes. 32 bytes."""

def monotonic_clock() -> float:
    """Seconds of the clock on which the fast path measures lifetimes: that of `entra_fast._clock`."""

def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON as the json module would, but refuse duplicate members, lone surrogates, NaN, a byte
    order mark and deep nesting. Raises ValueError with a reason that repeats nothing of the text."""

def unverified_header(token: str | bytes) -> dict[str, Any]:
    """The header of a token, not verified. Never decide anything by it.

    Raises InvalidToken when it is not a JWT."""

def unverified_claims(token: str | bytes) -> dict[str, Any]:
    """The claims of a token, not verified. Never decide anything by them.

    Raises InvalidToken when it is not a JWT."""

def unverified_agent(claims: str) -> Agent | None:
    """The agent identity in claims that somebody else has verified, or nobody: their JSON text.

    Raises:
        InvalidToken: code `claims_not_an_object`."""

def unverified_issuer(token: str | bytes, max_token_bytes: int) -> str:
    """The issuer that a token names, not verified: it only chooses who verifies the token.

    Raises InvalidToken when it is not a JWT, is too large, or has no `iss` that is a string."""

def signature_figures() -> dict[str, int]:
    """How often AWS-LC `agreed` and `disagreed` with the fast library in this process, and whether that
    library may be used (`fast`, a bool)."""

def distrust_fast_signatures() -> None:
    """Verify with AWS-LC alone from now on, in this process. Tokens that only the fast library has verified
    are verified again."""

def when_fast_signatures_are_distrusted(callback: Callable[[], object]) -> None:
    """Call this once when the fast library is no longer trusted, on the thread that found the disagreement.
    The first callback stays."""

@final
class Agent:
    """What a token says about the agent identity behind it (Microsoft Entra Agent ID). For attribution and
    audit: authorize by roles and scopes, as for any other caller.

    Source: Microsoft, "Token claims reference for agents"."""

    @property
    def blueprint_id(self) -> str | None:
        """Client id of the blueprint that the agent identity was made from (`xms_par_app_azp`)."""
    @property
    def actor_kinds(self) -> tuple[int, ...]:
        """Kinds of the actor (`xms_act_fct`), in the order of the token; 11 is an agent identity."""
    @property
    def subject_kinds(self) -> tuple[int, ...]:
        """Kinds of the subject (`xms_sub_fct`), in the order of the token; 11 is an agent identity, 13 an
        agent's user account."""
    @property
    def is_subject(self) -> bool:
        """Whether the agent acts for itself, without a user."""
    @property
    def is_user(self) -> bool:
        """Whether the user of the token is the agent's own user account, not a person."""

@final
class Claims(Mapping[str, Any]):
    """The claims of a verified token: a read-only mapping, with typed helpers."""

    @property
    def is_app(self) -> bool:
        """Whether the token is an application's own, without a user: Entra ID writes `idtyp` `app` if and
        only if it is. False also where it cannot be told: neither `is_app` nor `is_user` is true then."""
    @property
    def is_user(self) -> bool:
        """Whether the token is an application's on behalf of a user: it has delegated permissions (`scp`),
        and `idtyp` is not `app`. False also where it cannot be told, as in tokens of other providers than
        Entra ID."""
    @property
    def roles(self) -> tuple[str, ...]:
        """Application roles (`roles`)."""
    @property
    def scopes(self) -> tuple[str, ...]:
        """Delegated permissions (the words of `scp`). In tokens of other providers, which have no `tid`, the
        words of `scope` where there is no `scp`."""
    @property
    def groups(self) -> tuple[str, ...]:
        """Object ids of the user's groups (`groups`). Empty also where there were too many: see
        `has_groups_overage`."""
    @property
    def has_groups_overage(self) -> bool:
        """True where Entra ID left the groups out because there are too many: then a missing group means
        nothing, and Microsoft Graph has to be asked."""
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
        """Client id of the application that asked for the token: `azp`, in v1.0 tokens of Entra ID `appid`,
        else `client_id`. From TokenX it is `<cluster>:<namespace>:<app>`. From ID-porten it is the platform
        that signed the user in, the same for all its applications: authorize nothing by it."""
    @property
    def pid(self) -> str | None:
        """The person's national identity number (`pid`), from ID-porten and TokenX. Some sign-ins have none:
        eIDAS, e-mail."""
    @property
    def acr(self) -> str | None:
        """The level of assurance of the sign-in (`acr`), as the token spells it. To compare it, use
        `acr_at_least`."""
    def acr_at_least(self, level: str, /) -> bool:
        """Whether the user signed in at this level of assurance or a higher one. Both spellings of a level
        are equal: `Level3` is `idporten-loa-substantial`, `Level4` is `idporten-loa-high`.

        Args:
            level: a level of ID-porten, eIDAS or Ansattporten. Levels of one are not comparable with
                another's.

        Raises:
            ValueError: there is no such level."""
    @property
    def consumer_orgno(self) -> str | None:
        """Number of the organization that calls (`consumer`), from Maskinporten: nine digits. In a delegated
        token, the organization on whose behalf `supplier_orgno` calls. From ID-porten it is the owner of the
        client."""
    @property
    def supplier_orgno(self) -> str | None:
        """Number of the organization that calls on behalf of the consumer (`supplier`), from Maskinporten;
        None where nothing is delegated."""
    @property
    def authorization_details(self) -> tuple[dict[str, Any], ...]:
        """The objects in `authorization_details` (RFC 9396, section 9.1), such as the system user of
        Maskinporten."""
    @property
    def name(self) -> str | None:
        """The user's display name (`name`). For display, never for decisions."""
    @property
    def agent(self) -> Agent | None:
        """The agent identity behind the token; None if there is none. Entra ID writes kinds of actors and
        subjects into other tokens, too, so only those of agents, or a blueprint, count."""
    def require(self, requirement: Require | None = None, /, **conditions: Unpack[Conditions]) -> None:
        """Raise Forbidden unless the token has what is required: a `Require`, or the conditions of one, as
        `role="reader"` or `any_of=[...]`. Naming none, or a value that is None because a setting is missing,
        is a `TypeError`: it must not admit every token."""
    @overload
    def groups_complete(
        self, tokens: UserTokenSource, /, **options: Unpack[GroupOptions]
    ) -> tuple[str, ...]: ...
    @overload
    def groups_complete(
        self, tokens: AsyncUserTokenSource, /, **options: Unpack[GroupOptions]
    ) -> Coroutine[Any, Any, tuple[str, ...]]:
        """The ids of all groups of the user. If the token leaves them out because there are too many
        (`has_groups_overage`), Microsoft Graph is asked, on behalf of the user; else these are `groups`, and
        nothing is requested.

            groups = claims.groups_complete(tokens.for_user(users_token))           # a TokenClient
            groups = await claims.groups_complete(tokens.for_user(users_token))     # an AsyncTokenClient

        Graph lists the groups of which the user is a direct or indirect member, also those that are not
        assigned to the application. The address in `_claim_sources` is never called.

        Args:
            tokens: the tokens of the user whose claims these are.
            graph: scheme and host of Microsoft Graph; by default that of the issuer: the public or a national
                cloud's, or the local Entra ID's own. `http://host:port` is for a local one elsewhere.
            security_enabled_only: leave out groups that are not security groups (distribution lists...),
                directory roles and administrative units.
            max_age: seconds for which a user's groups are remembered, 300 by default, at most 3600; 0: not at
                all.
            http: how Graph is asked.

        Raises:
            EntraFastError: code `groups_need_user`.
            ProviderError: no token for Graph was issued; or codes `graph_refused`, `graph_unavailable`,
                `graph_response_invalid` and `groups_too_many`.
            ConfigurationError: an argument cannot be used; `graph` is required for this issuer.
            TypeError: these are not the tokens of a user."""
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
        """(kid, reason) of each entry that is not used."""
    @property
    def ambiguous(self) -> int:
        """Number of entries that are not used because a different key has the same `kid`."""
    def agrees_with(self, other: KeySet, kid: str | None) -> bool:
        """Whether another set has the same key under that id, or none as well."""
    def __len__(self) -> int: ...

@final
class Policy:
    """The conditions for accepting a token; complete when constructed, and immutable.

    `audiences`: None if `aud` is not checked. `algorithms`: the preferred ones first; a key without `alg`
    serves the first one of its type. Defaults: `algorithms` RS256; `required_claims` iat (iss and exp are
    always required, aud unless it is not checked). `tenants`: allowed tenant ids, or ("*",) for any; needed
    when an issuer holds `{tenantid}`. `signatures`: "fast" lets rind verify RS256 and PS256, "aws-lc" is
    AWS-LC alone. `kid_required`: whether tokens without `kid` are rejected even where there is one key.
    Raises ConfigurationError."""

    def __new__(
        cls,
        *,
        issuers: Iterable[str],
        audiences: Iterable[str] | None,
        algorithms: Iterable[str] | None = None,
        tenants: Iterable[str] | None = None,
        leeway: float = 60.0,
        required_claims: Iterable[str] | None = None,
        max_age: float | None = None,
        max_token_bytes: int = 65536,
        signatures: str = "fast",
        kid_required: bool = False,
    ) -> Policy: ...

@final
class Validator:
    """One policy, the current key set and the bounded verification cache. Thread-safe."""

    def __new__(
        cls,
        policy: Policy,
        keys: KeySet | None = None,
        *,
        cache_entries: int = 20_000,
        cache_bytes: int = 134_217_728,
    ) -> Validator: ...
    @property
    def keys(self) -> KeySet | None: ...
    def set_keys(self, keys: KeySet | None) -> None:
        """Swap the key set atomically. Cached verifications by a key that is gone are no longer used."""
    def validate(self, token: str | bytes, now: float | None = None) -> Claims:
        """The claims, or InvalidToken. Code `unknown_key` asks for a refresh of the key set."""
    def unverified_could_pass(self, token: str | bytes, now: float | None = None) -> bool:
        """Whether a token could pass if its signature were valid: looks at `iss`, `aud` and `exp`. Says
        whether the token may cause keys to be fetched, never whether it is acceptable."""
    def validate_many(
        self, tokens: Sequence[str | bytes], now: float | None = None
    ) -> list[Claims | EntraFastError]:
        """Validate on all cores with the GIL released; results in order, failures as values."""
    def introspect(self, token: str | bytes, now: float | None = None) -> bytes:
        """The JSON body of an introspection response: `{"active":true,...claims verbatim}`.
        Raises InvalidToken like validate."""
    def explain(self, token: str | bytes, now: float | None = None) -> list[dict[str, Any]]:
        """Each check in turn: check, passed (None if it could not be made), value, code, message, expected,
        actual."""
    def sweep(self, *, parts: int, now: float | None = None) -> int:
        """Remove expired tokens, and those whose key is gone, from one of `parts` parts of the cache, each
        time from the next one. Returns how many."""
    def stats(self) -> dict[str, int]:
        """cache_entries, cache_bytes, cache_hits, cache_misses, cache_evictions."""

@final
class SigningKey:
    """A private key that signs: client assertions in the sidecar, tokens in the local Entra ID."""

    @staticmethod
    def from_jwk(jwk: str | bytes) -> SigningKey:
        """A private JWK (RSA, EC P-256/P-384, OKP Ed25519, AKP ML-DSA). Raises ConfigurationError (code
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
class CachedToken:
    """A cached token that may be handed out."""

    @property
    def access_token(self) -> str: ...
    @property
    def token_type(self) -> str: ...
    @property
    def expires_in(self) -> int:
        """Whole seconds that the token has left, rounded down, at the time of the call that found it."""
    @property
    def renewal_due(self) -> bool:
        """Whether this caller has to renew the token in the background. True for one caller per renewal: the
        first that finds it due. `TokenCache.renewal_failed` makes it due again."""

@final
class TokenCache:
    """Bounded cache of acquired and exchanged tokens, by entries and by bytes. Thread-safe.

    Lifetimes run on the monotonic clock, so that a jump of the wall clock neither revives nor ends a token.
    The subject token's expiry is a wall-clock time."""

    def __new__(cls, *, max_entries: int = 100_000, max_bytes: int = 268_435_456) -> TokenCache: ...
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
        """Cache a token that expires `expires_in` seconds after `monotonic`. `renew_in`: seconds until its
        renewal is due; by default 0.8 of the time for which it may be handed out. A token that has expired is
        not cached."""
    def get(self, key: bytes, *, monotonic: float, now: float) -> CachedToken | None:
        """The token, unless it is within its safety margin (120 s before its expiry; half of its lifetime if
        that is 240 s or less) or its subject token has expired."""
    def get_stale(self, key: bytes, *, monotonic: float, now: float) -> CachedToken | None:
        """Like get, but also within the safety margin, while the token is valid, for use when the provider
        fails."""
    def renewal_failed(self, key: bytes, *, monotonic: float, retry_in: float) -> None:
        """Make the renewal due again, `retry_in` seconds after `monotonic`."""
    def sweep(self, *, monotonic: float, now: float, parts: int) -> int:
        """Remove expired tokens from one of `parts` parts of the cache, each time from the next one. Returns
        how many."""
    def remove(self, key: bytes) -> None: ...
    def stats(self) -> dict[str, int]:
        """entries, exchanged (of the entries), bytes, hits, misses, evictions, expired."""

@final
class AccessLog:
    """Collects the lines of the access log and writes them to standard error in pieces of whole lines, at
    most 64 KiB each. `worker`: the number of this process, where several share the log; pieces are then at
    most 4 KiB, which a pipe takes as a whole. Lines that cannot be written are lost."""

    def __new__(cls, *, worker: int | None = None) -> AccessLog: ...
    def add(self, method: str, path: str, status: int, seconds: float) -> None:
        """A line for one request, as of now."""
    def flush(self) -> None:
        """Write the lines that wait."""

@final
class Stop:
    """Why a call of the fast path stopped."""

    DONE: ClassVar[Stop]
    """Everything was answered."""
    PARTIAL: ClassVar[Stop]
    """The rest is the beginning of a request; `Served.length` is the length of the whole, 0 if unknown."""
    FRAMED: ClassVar[Stop]
    """The next request, of `Served.length` bytes, is for the slow path."""
    KEY_NEEDED: ClassVar[Stop]
    """Like FRAMED, but with new keys the fast path could answer the request."""
    UNKNOWN: ClassVar[Stop]
    """The rest is for the slow path, and so is everything else that arrives on the connection."""
    FULL: ClassVar[Stop]
    """The limit on the size of answers, or on the verifications of a call or a turn, was reached; the rest
    waits for the next turn."""

@final
class Served:
    """What a call of the fast path did."""

    @property
    def answers(self) -> bytes:
        """The answers, one after the other."""
    @property
    def answered(self) -> int:
        """How many there are."""
    @property
    def consumed(self) -> int:
        """How many bytes of the data they answer."""
    @property
    def stop(self) -> Stop: ...
    @property
    def length(self) -> int:
        """The length that `stop` refers to."""
    @property
    def provider(self) -> int:
        """The position of the provider whose keys `Stop.KEY_NEEDED` is about."""
    @property
    def renewals(self) -> list[tuple[int, str, str | None, list[str], str | None]]:
        """Tokens to renew in the background: (position of the provider, target, subject token or None,
        resources, authorization details or None)."""
    @property
    def turn_due(self) -> bool:
        """Whether `FastPath.begin_turn` should be called once the event loop has been through its other
        work."""

@final
class FastPath:
    """Answers plain HTTP/1.1 requests of one sidecar from its caches: see rust/core/src/sidecar/fast_path.rs.

    A provider is meant by its position in `providers`. `bounds`: of the buckets of durations, in seconds.
    `access_log`: gets a line for each answer.
    `clocks`: (wall, monotonic), in seconds; by default those of the system."""

    def __new__(
        cls,
        tokens: TokenCache,
        callers: CallerCheck,
        providers: Providers,
        *,
        bounds: Sequence[float],
        access_log: AccessLog | None = None,
        clocks: tuple[Callable[[], float], Callable[[], float]] | None = None,
    ) -> FastPath: ...
    def attach(self, provider: int, validator: Validator) -> None:
        """Introspect tokens of the provider with this validator from now on. The first one stays."""
    def set_cool_downs(self, provider: int, *, unknown_key: float, failed_signature: float) -> None:
        """Until then, in seconds of the monotonic clock, tokens that the known keys do not verify are
        answered here, because no keys are fetched for them: tokens with an unknown signing key, and tokens
        whose signature fails under a known `kid`."""
    def record_spans(self, recorder: SpanRecorder) -> None:
        """Record the spans of requests from now on. The first recorder stays."""
    def leave_spans(self, propagates: bool) -> None:
        """Leave requests that may need a span to the slow path from now on: all but those whose
        `traceparent` says that the caller does not sample. `propagates`: whether that header counts."""
    def begin_turn(self) -> None:
        """A new turn begins: the event loop has been through its other work."""
    @property
    def turn_is_over(self) -> bool:
        """Whether the turn's verifications are used up, so that tokens not seen before have to wait for the
        next one."""
    def serve(self, data: bytes, waited: float = 0.0) -> Served:
        """Answer what can be answered of the bytes that a connection has. `waited`: how many seconds the
        bytes have waited before, for the metrics."""
    def durations(self) -> dict[str, tuple[list[int], float]]:
        """By endpoint: (counts in the buckets of `bounds` and one more, seconds in all)."""
    def answered(self, provider: int) -> dict[str, int]:
        """By endpoint: how many requests for the provider were answered. A token is always one from the
        cache. Raises IndexError, as the next three, where there is no such provider."""
    def active(self, provider: int) -> int:
        """How many introspections were answered with an active token."""
    def rejections(self, provider: int) -> dict[str, int]:
        """By error code: how many introspections were answered with an inactive token."""
    def take_examples(self, provider: int) -> dict[str, tuple[str | None, str | None]]:
        """By error code: `expected` and `actual` of the error of one token that was rejected since the last
        call."""

@final
class FastPathReceiver:
    """The receiver of the bytes of one connection's transport.

    While the connection is at rest, one plain request is answered here, without a step of Python. Everything
    else goes to `otherwise`: the bytes, and what the fast path did with them, or None where it was not
    asked."""

    def __new__(
        cls, fast_path: FastPath, otherwise: Callable[[bytes, Served | None], None]
    ) -> FastPathReceiver: ...
    def connect(self, write: Callable[[bytes], object]) -> None:
        """Write answers there from now on. The first one stays."""
    at_rest: bool
    """Whether no request is in progress on the connection, so that arriving bytes are for the fast path."""

    @property
    def answered_at(self) -> float:
        """When a request was answered here last, in seconds of the monotonic clock; 0 before the first."""
    @property
    def answered(self) -> int:
        """How many requests were answered here."""
    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol.data_received."""

@final
class SpanRecorder:
    """The spans of requests that the fast path answers, in a bounded queue: see
    rust/core/src/sidecar/spans.rs.

    `providers`: their names, by position. `parent_based`: whether the caller's decision holds. `bound`:
    otherwise a trace is sampled if the last eight bytes of its id are less than this. `propagates`: whether
    `traceparent` is read. At most `queue` spans wait, and `batch` of them are one export. `resource`,
    `scope`: a `ResourceSpans` without `scope_spans`, and a `ScopeSpans` without `spans`, encoded.
    `max_attributes`, `max_characters`: limits of a span and of an attribute. `batch_is_full`: called in the
    thread of the event loop whenever another batch waits."""

    def __new__(
        cls,
        providers: Sequence[str],
        *,
        parent_based: bool,
        bound: int,
        propagates: bool,
        queue: int,
        batch: int,
        resource: bytes,
        scope: bytes,
        max_attributes: int | None,
        max_characters: int | None,
        batch_is_full: Callable[[], object],
    ) -> SpanRecorder: ...
    def take(self) -> tuple[bytes, int] | None:
        """The next export, an encoded `ExportTraceServiceRequest` with the oldest spans, and how many they
        are; None if none wait. From any thread."""
    @property
    def dropped(self) -> int:
        """How many spans were dropped because too many waited."""

# --- the contract of the endpoints: rust/core/src/sidecar/contract.rs ---

ENDPOINT_PATHS: dict[str, str]
"""The path of each endpoint, by its name in metrics."""

MAX_BODY_BYTES: int
"""A larger body is refused before it is parsed."""

MAX_CLAIMS_BYTES: int
"""A larger claims challenge is refused."""

MAX_RESOURCES: int
"""Maximum number of values of `resource`."""

MAX_RESOURCE_BYTES: int
"""Maximum length of all values of `resource` together."""

MAX_DETAILS_BYTES: int
"""Larger `authorization_details` are refused."""

MAX_PROVIDERS: int
"""Maximum number of enabled providers."""

def scope_for(target: str, *, rewrites: bool = True) -> str:
    """The scope that a target means at a provider. Where that `rewrites` targets,
    `<cluster>:<namespace>:<app>` becomes `api://<cluster>.<namespace>.<app>/.default`; any other target stays
    as it is.

    Raises EntraFastError (code `target_invalid`) with a sentence that names the accepted forms."""

def is_form(content_types: Sequence[str]) -> bool:
    """Whether a body is a form, from the values of its Content-Type headers; else it is JSON.

    Raises EntraFastError (code `request_invalid`) unless there is exactly one, and it is one of the two."""

@final
class Provider:
    """An enabled provider, and the application at it: see rust/core/src/sidecar/providers.rs.

    `issues`: whether it issues tokens for the application itself. `exchanges`: whether it exchanges tokens of
    users. `accepts_claims`, `accepts_details`: whether `claims`, or `resource` and `authorization_details`,
    are passed on; otherwise they are ignored."""

    def __new__(
        cls,
        name: str,
        *,
        aliases: Sequence[str],
        issues: bool,
        exchanges: bool,
        rewrites_targets: bool,
        accepts_claims: bool,
        accepts_details: bool,
        tenant: str,
        client_id: str,
    ) -> Provider: ...

@final
class Providers:
    """The enabled providers, and the name and older names of each one that is known, enabled or not."""

    def __new__(
        cls, enabled: Sequence[Provider], known: Sequence[tuple[str, Sequence[str]]]
    ) -> Providers: ...
    def parse_token_request(
        self, body: bytes, *, form: bool, exchange: bool
    ) -> tuple[int, str, bool, str | None, str | None, list[str], str | None]:
        """(position of the provider, target, skip_cache, the user's token, the claims challenge, resources,
        authorization details) of a request to a token endpoint. The user's token is None unless it is an
        `exchange`; the challenge is the text of a JSON object, the details that of an array of objects, or
        None.

        Raises EntraFastError (code `request_invalid`) with a sentence that names the field."""
    def refused_provider(self, body: bytes, *, form: bool, endpoint: str) -> tuple[str, bool] | None:
        """The name of the provider because of which a request to an endpoint (a name in `ENDPOINT_PATHS`) is
        refused, and whether it is enabled; None if the request is refused for another reason."""
    def parse_introspection_request(self, body: bytes, *, form: bool) -> tuple[int, str]:
        """The position of the provider and the token in a request to the introspection endpoint.

        Raises EntraFastError (code `request_invalid`) with a sentence that names the field."""

def parse_form(body: bytes, known: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """The fields of any form, in their order: all, or only the `known` ones. Unknown fields are ignored.

    Raises EntraFastError (code `request_invalid`) where it has more than 256 fields, or a known field is
    repeated or not percent-encoded UTF-8."""

def head_refusal(*, hosts: Sequence[str], transfer_encodings: Sequence[str]) -> tuple[int, str] | None:
    """Status and sentence of the refusal of a request that has these values of Host and Transfer-Encoding
    headers, or None where RFC 9112 allows them."""

def transfer_coding_refusal(head: bytes) -> tuple[int, str] | None:
    """As `head_refusal`, for the bytes of a head whose Transfer-Encoding headers the full parser has
    refused."""

def is_loopback_host(host: str) -> bool:
    """Whether a host name or address, without port and brackets, is the loopback of this machine."""

def host_name(host: str) -> str | None:
    """The name or address in the value of a Host header, in lower case, without port and brackets; None where
    the value is malformed."""

def is_own_page(*, fetch_site: str | None, origin: str | None, own_origin: str, host: str) -> bool:
    """Whether a request that changes something comes from a page of the server's own, or not from a browser.

    `fetch_site`, `origin`, `host`: the headers Sec-Fetch-Site, Origin and Host. `own_origin`: the server's
    scheme, host and port."""

@final
class CallerCheck:
    """The caller check of one server. `allowed_hosts` are accepted in addition to loopback hosts."""

    def __new__(cls, allowed_hosts: Iterable[str]) -> CallerCheck: ...
    def allows_host(self, host: str) -> bool:
        """Whether the value of a Host header is a loopback host or an allowed one."""
    def refusal(
        self,
        *,
        hosts: Sequence[str],
        has_origin: bool,
        fetch_sites: Sequence[str],
        is_forwarded: bool,
        probe: bool = False,
    ) -> str | None:
        """The sentence of the refusal, or None where the caller is allowed.

        `hosts` and `fetch_sites`: the values of all Host and Sec-Fetch-Site headers. `has_origin` and
        `is_forwarded`: whether there is an Origin or an X-Forwarded-For header. `probe`: the request came to
        the probe listener, where any host is right."""
