"""Validates resources of the Prometheus operator against its CRDs: CRD_FOLDER MANIFEST...

kubernetes-validate knows Kubernetes' own kinds only. Prints each mistake, and ends with status 1 if there is
one. Unlike the operator, it refuses fields that the CRD does not have: they are misspelled.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import jsonschema
import yaml

GROUP = "monitoring.coreos.com"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads `=`, a value that YAML 1.1 has a type for, as the text that it is."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda _, node: node.value)


@functools.cache
def schema(folder: Path, kind: str, version: str) -> dict[str, Any]:
    """The schema of a kind."""
    file = folder / f"{GROUP}_{kind.lower()}s.yaml"
    definition = yaml.load(file.read_text(), _Loader)["spec"]  # noqa: S506 - a safe loader
    (found,) = (each for each in definition["versions"] if f"{GROUP}/{each['name']}" == version)
    closed: dict[str, Any] = _closed(found["schema"]["openAPIV3Schema"])
    closed["properties"]["metadata"] = {"type": "object"}
    return closed


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


def main(folder: str, *manifests: str) -> int:
    wrong = count = 0
    for file in manifests:
        for document in yaml.safe_load_all(Path(file).read_text()):
            if not document or not document["apiVersion"].startswith(f"{GROUP}/"):
                continue
            count += 1
            known = schema(Path(folder), document["kind"], document["apiVersion"])
            for error in jsonschema.Draft7Validator(known).iter_errors(document):
                wrong += 1
                print(f"{file}: {document['kind']}: {error.json_path}: {error.message}", file=sys.stderr)
    if not count:
        print("no resource of the Prometheus operator: nothing was validated", file=sys.stderr)
    return int(wrong > 0 or not count)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
