"""The token generator: pages and routes that give fresh tokens to developers who try out an API.

It is an ordinary application at the provider, configured by the AZURE_* variables like any other, so it runs
against both a real tenant and the local Entra ID. It may use everything from `validate` downwards; it does
not use the sidecar or the emulator.

An application: its Python modules are not public.
"""

from __future__ import annotations

from entra_fast import _extras

with _extras.importing("dev", "the token generator"):
    from entra_fast.generator.server import (
        RunningGenerator,
        run,
        start_generator,
        start_tokenx_generator,
    )
    from entra_fast.generator.settings import GeneratorSettings
    from entra_fast.generator.tokenx.settings import TokenXGeneratorSettings

__all__ = [
    "GeneratorSettings",
    "RunningGenerator",
    "TokenXGeneratorSettings",
    "run",
    "start_generator",
    "start_tokenx_generator",
]
