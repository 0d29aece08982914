"""`python -m entra_fast.sidecar.process`: starts a worker. The supervisor runs this; see worker.py."""

from __future__ import annotations

import sys

from entra_fast.sidecar.process.aiohttp_import import import_aiohttp

if __name__ == "__main__":
    import_aiohttp()
    from entra_fast.sidecar.process.worker import main

    main(sys.argv[1:])
