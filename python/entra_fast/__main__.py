"""`python -m entra_fast` is `entra-fast`."""

from __future__ import annotations

import sys

from entra_fast.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
