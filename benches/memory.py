"""Memory of a cached verification, and whether it stays flat: python -m benches.memory [TOKENS [OUT.json]]

Sends distinct valid tokens (10^6 by default) through a validator whose cache holds 20,000, and prints the
resident memory as it goes. Making the tokens is most of the time, although Ed25519 is quick.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benches import tokens as material
from entra_fast._native import SigningKey
from entra_fast.validate import Validator


def status_kib(name: str, process: int | str = "self") -> int:
    """A figure of /proc/<process>/status, such as `VmRSS`: KiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"no {name}")


def resident_kib() -> int:
    return status_kib("VmRSS")


def main() -> None:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    jwk = material.private_jwk("EdDSA")
    key = SigningKey.from_jwk(json.dumps(jwk))
    header = json.dumps({"typ": "JWT", "alg": "EdDSA", "kid": key.kid}).encode()
    jwks = json.dumps({"keys": [material.public_half(jwk)]})
    entries = 20_000
    validator = Validator(
        material.ISSUER, material.AUDIENCE, jwks=jwks, algorithms=["EdDSA"], cache_entries=entries
    )
    now = int(time.time()) - 30
    start = resident_kib()
    figures: list[int] = []
    for serial in range(total):
        token = key.sign(header, json.dumps(material.claims(serial, now)).encode())
        validator.validate(token)
        if (serial + 1) % max(total // 20, 1) == 0:
            figures.append(resident_kib())
            stats = validator.stats()
            print(
                f"{serial + 1:>9} tokens  {figures[-1] / 1024:7.1f} MiB resident  "
                f"{stats['cache_entries']:>6} cached  {stats['cache_bytes'] / 2**20:6.1f} MiB by its account",
                flush=True,
            )
    stats = validator.stats()
    filled = figures[len(figures) // 4 :]
    each = stats["cache_bytes"] / max(stats["cache_entries"], 1)
    slope = (filled[-1] - filled[0]) / (total * 0.75 / 10_000)
    print(f"\n{each:.0f} bytes for a cached verification")
    print(f"{(figures[-1] - start) / 1024:.1f} MiB resident for the cache and all else")
    print(f"{(filled[-1] - filled[0]) / 1024:+.1f} MiB over the last three quarters of the tokens")
    if len(sys.argv) > 2:
        result = {
            "tokens": total,
            "token_bytes": len(token),
            "bytes_per_token": round(each),
            "rss_slope_kib_per_10k": round(slope, 2),
        }
        Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
