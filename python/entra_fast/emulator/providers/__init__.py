"""The other providers of NAIS beside the local Entra ID, made of the same manifests: what they know and
decide.

No HTTP: their endpoints and pages are in web/. Each has a package of its own, which knows no other.
"""

from __future__ import annotations

from typing import Any

from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.model.workloads import tokenx_generator
from entra_fast.emulator.providers.explanation import ProviderExplanation
from entra_fast.emulator.providers.idporten.provider import IdPorten
from entra_fast.emulator.providers.maskinporten.provider import Maskinporten
from entra_fast.emulator.providers.tokenx.provider import TokenX
from entra_fast.emulator.providers.tokenx.token_endpoint import SubjectIssuer
from entra_fast.errors import ConfigurationError


class LocalProviders:
    """All of them, for one local Entra ID, whose address, clock and manifests they share."""

    def __init__(self, local: LocalProvider) -> None:
        self._local = local
        self.tokenx = TokenX(local, self._issuers)
        self.maskinporten = Maskinporten(local)
        self.idporten = IdPorten(local)
        self._all: tuple[TokenX | Maskinporten | IdPorten, ...] = (
            self.tokenx,
            self.maskinporten,
            self.idporten,
        )

    def environment(self, application: str) -> dict[str, str]:
        """What NAIS injects into an application for these providers, `<X>_ENABLED` included.

        Args:
            application: `<cluster>:<namespace>:<name>`.
        """
        environment: dict[str, str] = {}
        for provider in self._all:
            environment |= provider.environment(application)
        return environment

    def tokenx_generator_environment(self) -> dict[str, str]:
        """What the token generator for TokenX needs: its clients at TokenX and ID-porten, and where it gets
        tokens without a login. Its redirect URI is registered with `idporten.add_redirect_uri`."""
        name = tokenx_generator(self._local.generator_cluster)
        return {
            **self.environment(name),
            **self.idporten.login_proxy_environment(name),
            "TOKEN_GENERATOR_FAKE_LOGIN_URL": f"{self.idporten.issuer}/fake",
        }

    def reset(self) -> None:
        """Forget what has happened since the start. Keys stay, so that clients need no new ones."""
        self.idporten.reset()

    def explain(
        self, provider: str, consumer: str, target: str, organization: str | None = None
    ) -> ProviderExplanation:
        """What would happen if `consumer` asked one of these providers for a token for `target`.

        Args:
            provider: `tokenx` or `maskinporten`.
            target: an application; for Maskinporten scopes, separated by spaces.
            organization: number of the customer on whose behalf, for Maskinporten.

        Raises:
            ConfigurationError: there is no such provider or consumer, or an argument does not fit.
        """
        workload = self._local.registry.find_workload(consumer)
        if organization is not None and provider != "maskinporten":
            text = "organization: only Maskinporten gives tokens on behalf of an organization"
            raise ConfigurationError("explain_invalid", text, "organization")
        match provider:
            case "tokenx":
                return self.tokenx.explain(workload, target)
            case "maskinporten":
                return self.maskinporten.explain(workload, target, organization)
            case _:
                text = f"provider: {provider[:50]!r} is none of entra_id, tokenx and maskinporten"
                raise ConfigurationError("explain_invalid", text, "provider")

    def of(self, application: str) -> list[dict[str, Any]]:
        """The providers that an application is registered with, for the console: `name`, `issuer`,
        `client_id`, `details`."""
        return [found for provider in self._all if (found := provider.registration(application)) is not None]

    @property
    def issuers(self) -> dict[str, str]:
        """The issuer of each provider, by its name. Generates no keys."""
        return {provider.name: provider.issuer for provider in self._all}

    def describe(self) -> list[dict[str, Any]]:
        """Each provider: `name`, `issuer`, `discovery`, and the `kid` of each published key, the one that
        signs first."""
        return [
            {
                "name": provider.name,
                "issuer": provider.issuer,
                "discovery": provider.well_known,
                "keys": [key["kid"] for key in provider.key_set()["keys"]],
            }
            for provider in self._all
        ]

    def rotate(self, provider: str) -> str:
        """Let a provider sign with a new key from now on, without notice; returns its kid. Raises
        EntraFastError."""
        kid = self._local.provider_keys.rotate(provider)
        self._local.save()
        return kid

    def _issuers(self) -> list[SubjectIssuer]:
        """Issuers of this server whose tokens TokenX exchanges."""
        idporten = self.idporten
        return [SubjectIssuer(idporten.issuer, lambda _issuer, _kid: idporten.keys.key_set)]
