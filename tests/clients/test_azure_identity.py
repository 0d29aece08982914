"""Microsoft's azure-identity: client secret, on behalf of, workload identity; and its classes of errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    ClientSecretCredential,
    DeviceCodeCredential,
    OnBehalfOfCredential,
    WorkloadIdentityCredential,
)

from entra_fast._native import unverified_claims

from .conftest import APP_A, SCOPE_B, SCOPE_NOBODY, Served


def test_client_secret(entra: Served) -> None:
    """A token for the target."""
    credential = ClientSecretCredential(
        entra.tenant,
        entra.client_id(APP_A),
        entra.secret(APP_A),
        authority=entra.base_url,
        disable_instance_discovery=True,
    )
    claims = unverified_claims(credential.get_token(SCOPE_B).token)
    assert claims["azp"] == entra.client_id(APP_A)
    with pytest.raises(ClientAuthenticationError, match="AADSTS501051"):
        credential.get_token(SCOPE_NOBODY)


def test_on_behalf_of(entra: Served) -> None:
    """The user's token becomes one for the target."""
    credential = OnBehalfOfCredential(
        entra.tenant,
        entra.client_id(APP_A),
        client_secret=entra.secret(APP_A),
        user_assertion=entra.user_token("ada"),
        authority=entra.base_url,
        disable_instance_discovery=True,
    )
    assert unverified_claims(credential.get_token(SCOPE_B).token)["NAVident"] == "A100001"


def test_device_code(entra: Served) -> None:
    """The user enters the code that the credential shows; the token is the user's."""

    def show(address: str, code: str, _: object) -> None:
        assert address == f"{entra.base_url}/devicelogin"
        entra.enter_device_code(code)

    credential = DeviceCodeCredential(
        entra.client_id(APP_A),
        tenant_id=entra.tenant,
        prompt_callback=show,
        authority=entra.base_url,
        disable_instance_discovery=True,
    )
    claims = unverified_claims(credential.get_token(SCOPE_B).token)
    assert (claims["NAVident"], claims["azpacr"]) == ("A100001", "0")


def test_workload_identity(entra: Served, tmp_path: Path) -> None:
    """The file that Kubernetes would write is the credential; another workload's is refused."""
    file = tmp_path / "token"
    file.write_text(entra.local.federated_token(APP_A))

    def credential() -> WorkloadIdentityCredential:
        return WorkloadIdentityCredential(
            tenant_id=entra.tenant,
            client_id=entra.client_id(APP_A),
            token_file_path=str(file),
            authority=entra.base_url,
            disable_instance_discovery=True,
        )

    assert unverified_claims(credential().get_token(SCOPE_B).token)["azpacr"] == "2"
    file.write_text(entra.local.federated_token("dev-gcp:team-b:app-c"))
    with pytest.raises(ClientAuthenticationError, match="AADSTS700213"):
        credential().get_token(SCOPE_B)
