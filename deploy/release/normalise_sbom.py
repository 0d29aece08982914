"""Takes the working directory, the checkout, out of the SBOMs in wheels: `normalise_sbom.py WHEEL...`.

maturin names this project's crates in them by `path+file://<folder>`, which would differ from machine to
machine while everything else in a wheel is the same. The wheel is written again with the same times, and
RECORD (PyPA's binary distribution format) with the new hashes.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import sys
import zipfile
from pathlib import Path


def normalise(wheel: Path, folder: Path) -> None:
    """Replace the folder in the SBOMs of one wheel by /src."""
    uri, path = folder.as_uri().encode(), folder.as_posix().encode()
    with zipfile.ZipFile(wheel) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    changed = {
        info.filename: data.replace(uri, b"file:///src").replace(path, b"/src")
        for info, data in entries
        if ".dist-info/sboms/" in info.filename
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for info, data in entries:
            content = changed.get(info.filename, data)
            if info.filename.endswith(".dist-info/RECORD"):
                content = _record(data, changed)
            archive.writestr(info, content, compress_type=info.compress_type, compresslevel=9)


def _record(record: bytes, changed: dict[str, bytes]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for name, digest, size in csv.reader(io.StringIO(record.decode())):
        if name in changed:
            new = base64.urlsafe_b64encode(hashlib.sha256(changed[name]).digest()).rstrip(b"=").decode()
            writer.writerow((name, f"sha256={new}", len(changed[name])))
        else:
            writer.writerow((name, digest, size))
    return out.getvalue().encode()


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        normalise(Path(argument), Path.cwd())
