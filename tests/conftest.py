"""Lets every suite import what the suites share: `from support.tokens import ...`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
