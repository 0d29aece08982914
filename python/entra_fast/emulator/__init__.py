"""The local Entra ID: an emulator of the provider that enforces the access policies of NAIS manifests.

    local = LocalEntraId.from_files(["examples/manifests"], "examples/directory.yaml")
    running = await local.start("127.0.0.1", 8080)
    running.environment("dev-gcp:team-a:app-a")  # the AZURE_* variables that NAIS would inject
    await running.stop()

For development and tests; needs the extra `dev`. No code that runs in production imports it.
"""

from __future__ import annotations

from entra_fast import _extras

with _extras.importing("dev", "the local Entra ID"):
    _extras.need("dev", "the local Entra ID")  # most of which is imported later
    from entra_fast.emulator.model.directory import Directory, Group, User
    from entra_fast.emulator.model.documents import SourceError
    from entra_fast.emulator.model.manifests import Manifest, Notice, Source
    from entra_fast.emulator.protocol.explanation import Explanation
    from entra_fast.emulator.protocol.forge import ForgedToken
    from entra_fast.emulator.protocol.policy import Decision, Reason
    from entra_fast.emulator.serving import LocalEntraId, RunningEmulator

__all__ = [
    "Decision",
    "Directory",
    "Explanation",
    "ForgedToken",
    "Group",
    "LocalEntraId",
    "Manifest",
    "Notice",
    "Reason",
    "RunningEmulator",
    "Source",
    "SourceError",
    "User",
]
