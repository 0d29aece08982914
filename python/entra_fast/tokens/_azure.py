"""The interface of azure-core's credentials, without azure-core: every Azure SDK client takes a token client.

What belongs here: the translation of `get_token` and `get_token_info` (azure-core 1.31 and newer) into
requests of ours. The protocols are `TokenCredential` and `SupportsTokenInfo`, and their asynchronous twins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from entra_fast.errors import EntraFastError
from entra_fast.tokens._token import AccessToken, Token

if TYPE_CHECKING:  # so that type checkers accept a client as a credential, where azure-core is installed
    from azure.core.credentials import AccessToken as AzureToken
    from azure.core.credentials import AccessTokenInfo

ERROR_CODES = {
    "scopes_invalid": "a token is for one scope, and another number of scopes was requested",
    "tenant_mismatch": "a token of another tenant than the application's was requested",
}


def scope_of(scopes: tuple[str, ...]) -> str:
    """The one scope that is requested.

    Raises:
        EntraFastError: code `scopes_invalid`.
    """
    if len(scopes) != 1:
        raise EntraFastError(
            "scopes_invalid", f"pass exactly one scope, such as api://.../.default, not {len(scopes)}"
        )
    return scopes[0]


def check_tenant(requested: str | None, own: str) -> None:
    """
    Raises:
        EntraFastError: code `tenant_mismatch`.
    """
    if requested is not None and requested.lower() != own.lower():
        raise EntraFastError(
            "tenant_mismatch",
            "a token of another tenant was requested: this client has tokens of "
            + (f"the tenant {own} only" if own else "one tenant, which it does not know: pass tenant_id"),
        )


class AzureCredential(ABC):
    """`TokenCredential` and `SupportsTokenInfo`, on top of `token`."""

    @abstractmethod
    def token(self, target: str, *, skip_cache: bool = False, claims: str | None = None) -> Token:
        """A token for a target."""

    @property
    @abstractmethod
    def _tenant_id(self) -> str:
        """The tenant that tokens are of; empty if it is not known."""

    def get_token(
        self, *scopes: str, claims: str | None = None, tenant_id: str | None = None, **_: Any
    ) -> AzureToken:
        """A token for a client of azure-core.

        Args:
            scopes: exactly one.
            claims: a claims challenge; a new token is requested for it.
            tenant_id: the application's own tenant, or None.

        Raises:
            EntraFastError: codes `scopes_invalid`, `tenant_mismatch`, and as `token`.
            ProviderError: as `token`.
        """
        check_tenant(tenant_id, self._tenant_id)
        token = self.token(scope_of(scopes), claims=claims)
        return cast("AzureToken", AccessToken(token.token, token.expires_on))

    def get_token_info(self, *scopes: str, options: Mapping[str, Any] | None = None) -> AccessTokenInfo:
        """As `get_token`, for azure-core 1.31 and newer.

        Args:
            scopes: exactly one.
            options: `claims` and `tenant_id`; others have no effect.
        """
        asked = options or {}
        check_tenant(asked.get("tenant_id"), self._tenant_id)
        return cast("AccessTokenInfo", self.token(scope_of(scopes), claims=asked.get("claims")))


class AsyncAzureCredential(ABC):
    """`AsyncTokenCredential` and `AsyncSupportsTokenInfo`, on top of `token`."""

    @abstractmethod
    async def token(self, target: str, *, skip_cache: bool = False, claims: str | None = None) -> Token:
        """A token for a target."""

    @property
    @abstractmethod
    def _tenant_id(self) -> str:
        """The tenant that tokens are of; empty if it is not known."""

    async def get_token(
        self, *scopes: str, claims: str | None = None, tenant_id: str | None = None, **_: Any
    ) -> AzureToken:
        """See `AzureCredential.get_token`."""
        check_tenant(tenant_id, self._tenant_id)
        token = await self.token(scope_of(scopes), claims=claims)
        return cast("AzureToken", AccessToken(token.token, token.expires_on))

    async def get_token_info(self, *scopes: str, options: Mapping[str, Any] | None = None) -> AccessTokenInfo:
        """See `AzureCredential.get_token_info`."""
        asked = options or {}
        check_tenant(asked.get("tenant_id"), self._tenant_id)
        return cast("AccessTokenInfo", await self.token(scope_of(scopes), claims=asked.get("claims")))
