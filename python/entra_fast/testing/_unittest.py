"""The fixtures for unittest."""

from __future__ import annotations

import unittest
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from entra_fast.testing._clock import Clock
from entra_fast.testing._local import LocalEntra
from entra_fast.testing._tokens import TokenMaker


class EntraTestCase(unittest.TestCase):
    """A test case with a local Entra ID of its own for each test.

    Attributes:
        entra_manifests: files and folders with NAIS manifests; set it in your class.
        entra_directory: YAML file with users and groups; set it in your class.
        local_entra: the local Entra ID.
        entra_token: makes tokens: see `TokenMaker`.
        entra_clock: the clock of the local Entra ID and of its validators.
    """

    entra_manifests: ClassVar[Iterable[Path | str]] = ()
    entra_directory: ClassVar[Path | str | None] = None
    local_entra: LocalEntra
    entra_token: TokenMaker
    entra_clock: Clock

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """See unittest. The local Entra ID is there before `setUp`, whether or not that calls its base."""
        self.local_entra = LocalEntra(self.entra_manifests, self.entra_directory)
        self.entra_token, self.entra_clock = self.local_entra.token, self.local_entra.clock
        return super().run(result)

    def take_keys_down(self) -> None:
        """Until the end of the test, no keys are available: validators raise KeysUnavailable."""
        self.enterContext(self.local_entra.keys_down())
