"""Which errors reject the application or its credential, and which say nothing about either."""

from __future__ import annotations

import pytest

from entra_fast._provider.rejections import proves_nothing, rejects
from entra_fast._providers import ENTRA_ID, TOKENX
from entra_fast.errors import ProviderError


def refusal(error: str, *codes: int, status: int = 400, code: str = "provider_refused") -> ProviderError:
    return ProviderError(code, "no", status=status, error=error, details={"error_codes": list(codes)})


@pytest.mark.parametrize(
    ("error", "code", "rejected"),
    [
        ("invalid_client", 1, True),
        ("unauthorized_client", 700016, True),
        ("invalid_request", 90002, True),
        ("unauthorized_client", 7000112, True),
        ("unauthorized_client", 7000215, True),
        ("unauthorized_client", 7000222, True),
        ("unauthorized_client", 700027, True),
        ("unauthorized_client", 700024, True),
        ("unauthorized_client", 700025, False),
        ("invalid_grant", 501051, False),
        ("invalid_resource", 500011, False),
        ("invalid_scope", 70011, False),
    ],
)
def test_entra_ids_closed_list(error: str, code: int, rejected: bool) -> None:
    """Either the OAuth error or the AADSTS code suffices; any other refusal is about the request."""
    assert rejects(ENTRA_ID, refusal(error, code)) is rejected
    assert not proves_nothing(refusal(error, code))


@pytest.mark.parametrize(
    ("description", "rejected"),
    [
        ("token verification failed: Expired+JWT", True),
        ("invalid client authentication for client_id=a:b:c, client not registered.", True),
        ("client not registered", True),
        ("invalid subject_token: token verification failed: Expired+JWT", False),
        ("invalid subject_token: invalid request, cannot validate token from issuer=not registered", False),
        ("token exchange audience not registered is invalid", False),
        ("client 'a:b:c' is not authorized to get token with aud=not registered", False),
        ("Parameter not registered missing", False),
    ],
)
def test_tokenx_s_texts(description: str, rejected: bool) -> None:
    """TokenX has no codes. A target or a user's token that reads like a rejection condemns no credential."""
    error = ProviderError("provider_refused", description, status=400, error="invalid_request")
    assert rejects(TOKENX, error) is rejected


@pytest.mark.parametrize(
    "error",
    [
        refusal("invalid_client", 700027, status=408),
        refusal("invalid_client", 700027, status=429),
        refusal("invalid_client", 700027, status=500),
        refusal("invalid_client", 700027, status=503),
        refusal("invalid_client", 700027, code="provider_failed"),
        refusal("server_error", 700027),
        refusal("temporarily_unavailable", 700027),
    ],
    ids=["408", "429", "500", "503", "no OAuth error", "server_error", "temporarily_unavailable"],
)
def test_what_proves_nothing(error: ProviderError) -> None:
    """A proxy's or a struggling provider's answer does not condemn a credential, whatever it says."""
    assert proves_nothing(error)
    assert not rejects(ENTRA_ID, error)


@pytest.mark.parametrize("status", [400, 401, 403, 407, 409, 428, 430, 499])
def test_every_refusal_counts(status: int) -> None:
    """Between 400 and 499, but for the two statuses that mean "later"."""
    assert rejects(ENTRA_ID, refusal("invalid_client", status=status))


def test_what_is_tried() -> None:
    """Entra ID gives every application a token for itself, if it names itself by its client id."""
    assert (ENTRA_ID.name, ENTRA_ID.tried_scope("client-id", ())) == ("entra_id", "client-id/.default")
    assert ENTRA_ID.clock_tolerance == 30
