"""Entries of the shared cache: their names, their encryption, and the checks before they are used.

What belongs here: bytes in, tokens out, with time as an argument. What must never be here: the server
(redis_cache.py).

Needs the `[redis]` extra, for AES-GCM and HKDF.
"""

from __future__ import annotations

import base64
import hmac
import math
import os
import re
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from entra_fast._provider.oauth import MAX_ACCESS_TOKEN_BYTES, MAX_EXPIRES_IN
from entra_fast._provider.tokens import FetchedToken

VERSION = b"\x01"
"""Version of the format of entries. Another one is a miss, so that replicas of two releases can run side by
side."""
PREFIX = b"entra_fast:1:"
CHANNEL = PREFIX + b"replaced"

MAX_SKEW = 60.0
"""Seconds by which the clock of the replica that wrote an entry may be ahead of ours."""

_NONCE_BYTES, _TAG_BYTES = 12, 16
_HEAD = struct.Struct(">ddddQ")
"""When the token was fetched (seconds since the epoch), its lifetime, its age when written, the end of its
subject token (seconds since the epoch, or infinite), and the expiry it was written with (milliseconds)."""
MAX_ENTRY_BYTES = 1 + _NONCE_BYTES + _HEAD.size + MAX_ACCESS_TOKEN_BYTES + _TAG_BYTES
_TOKEN_TEXT = re.compile(rb"[\x21-\x7e]+")


class EntryRejected(Exception):
    """An entry is not what a replica wrote there. `reason`: one of `_metrics.SHARED_REJECTIONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EntryCipher:
    """Names and encrypts entries. All keys are derived from the configured one by HKDF (RFC 5869), each for
    its own purpose. Every entry has its own key, so that the limit on random nonces of AES-GCM (NIST SP
    800-38D, section 8.3) holds per entry, and not for all that are ever written."""

    __slots__ = ("_announcements", "_names", "_root")

    def __init__(self, key: bytes) -> None:
        self._root = hmac.digest(b"entra_fast shared cache 1", key, "sha256")  # HKDF-Extract
        self._names = self._derive(b"names")
        self._announcements = AESGCM(self._derive(b"announcements"))

    def _derive(self, purpose: bytes) -> bytes:
        return HKDFExpand(hashes.SHA256(), 32, purpose).derive(self._root)

    def name(self, kind: bytes, digest: bytes) -> bytes:
        """The name in Redis of an entry for a token. `digest`: see `_native.token_cache_key`."""
        keyed = hmac.digest(self._names, kind + b":" + digest, "sha256")
        return PREFIX + kind + b":" + base64.urlsafe_b64encode(keyed).rstrip(b"=")

    def seal(self, digest: bytes, content: bytes) -> bytes:
        """An entry: version, nonce, ciphertext with tag."""
        nonce = os.urandom(_NONCE_BYTES)
        return VERSION + nonce + self._entry(digest).encrypt(nonce, content, self._bound_to(digest))

    def open(self, digest: bytes, entry: bytes) -> bytes:
        """The content of an entry.

        Raises:
            EntryRejected: it was not sealed with this key for this digest.
        """
        if not 1 + _NONCE_BYTES + _TAG_BYTES < len(entry) <= MAX_ENTRY_BYTES:
            raise EntryRejected("size")
        if entry[:1] != VERSION:
            raise EntryRejected("version")
        nonce, sealed = entry[1 : 1 + _NONCE_BYTES], entry[1 + _NONCE_BYTES :]
        try:
            return self._entry(digest).decrypt(nonce, sealed, self._bound_to(digest))
        except InvalidTag:
            raise EntryRejected("decryption") from None

    def seal_announcement(self, sender: bytes, digest: bytes) -> bytes:
        """An announcement: nonce, ciphertext with tag. The digest is encrypted because it is not keyed."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._announcements.encrypt(nonce, sender + digest, CHANNEL)

    def open_announcement(self, message: bytes) -> tuple[bytes, bytes]:
        """(sender, digest).

        Raises:
            EntryRejected: it was not sealed with this key.
        """
        if len(message) != _NONCE_BYTES + 16 + 32 + _TAG_BYTES:
            raise EntryRejected("size")
        try:
            content = self._announcements.decrypt(message[:_NONCE_BYTES], message[_NONCE_BYTES:], CHANNEL)
        except InvalidTag:
            raise EntryRejected("decryption") from None
        return content[:16], content[16:]

    def _entry(self, digest: bytes) -> AESGCM:
        return AESGCM(self._derive(b"entry:" + digest))

    @staticmethod
    def _bound_to(digest: bytes) -> bytes:
        return b"entra_fast entry" + VERSION + digest


def pack(token: FetchedToken, *, now: float, monotonic: float, expiry_millis: int) -> bytes:
    """The content of an entry.

    Args:
        now: seconds since the epoch. monotonic: the same moment by the monotonic clock.
        expiry_millis: how long Redis keeps it.
    """
    age = monotonic - token.fetched_at
    end = math.inf if token.subject_expires_at is None else token.subject_expires_at
    head = _HEAD.pack(now - age, token.lifetime, age, end, expiry_millis)
    return head + token.access_token.encode("ascii")


def unpack(content: bytes, *, now: float, monotonic: float, left_millis: int) -> FetchedToken | None:
    """The token in the content of an entry, or None if it has expired.

    Its age is measured twice, by our clock and by how much of the expiry Redis has counted down, and the
    greater age counts: a wrong clock, here or there, makes a token look too old rather than too young.

    Args:
        now, monotonic: as for `pack`.
        left_millis: what Redis says is left of the entry's expiry.

    Raises:
        EntryRejected: the times or the token are not ones that a replica would have written.
    """
    if len(content) <= _HEAD.size:
        raise EntryRejected("content")
    fetched_at, lifetime, age_when_written, subject_end, expiry_millis = _HEAD.unpack_from(content)
    text = content[_HEAD.size :]
    if not (
        math.isfinite(fetched_at)
        and 0 < lifetime <= MAX_EXPIRES_IN
        and 0 <= age_when_written < lifetime
        and subject_end > 0
        and 0 < expiry_millis <= lifetime * 1000
        and _TOKEN_TEXT.fullmatch(text)
    ):
        raise EntryRejected("content")
    if not 0 <= left_millis <= expiry_millis:
        raise EntryRejected("expiry")
    if fetched_at > now + MAX_SKEW:
        raise EntryRejected("clock")
    age = max(0.0, now - fetched_at, age_when_written + (expiry_millis - left_millis) / 1000)
    if age >= lifetime or now >= subject_end:
        return None
    end = None if math.isinf(subject_end) else subject_end
    return FetchedToken(text.decode("ascii"), lifetime, monotonic - age, end)
