"""The sidecar of the Helm chart is that of the kustomize component: SIDECAR_YAML RENDERED_CHART.

Both are written out, so that each can be read; this keeps them the same. What the values of the example
choose is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

CHOSEN = ("image", "imagePullPolicy", "resources", "envFrom")
CHOSEN_VARIABLES = ("ENTRA_FAST_WORKERS", "ENTRA_FAST_LOG_LEVEL")


def sidecar(pod: dict[str, Any]) -> dict[str, Any]:
    """The sidecar's container, and what its pod must have for it."""
    (container,) = (each for each in pod["initContainers"] if each["name"] == "entra-fast")
    container = {name: value for name, value in container.items() if name not in CHOSEN}
    container["env"] = [each for each in container["env"] if each["name"] not in CHOSEN_VARIABLES]
    return {"seconds": pod["terminationGracePeriodSeconds"], "container": container}


def main(component: str, rendered: str) -> int:
    expected = sidecar(yaml.safe_load(Path(component).read_text())["spec"]["template"]["spec"])
    for document in yaml.safe_load_all(Path(rendered).read_text()):
        if document and document["kind"] == "Deployment":
            found = sidecar(document["spec"]["template"]["spec"])
            if found != expected:
                print(f"the chart's sidecar differs:\n{yaml.dump(found)}\nfrom\n{yaml.dump(expected)}")
                return 1
            return 0
    print("the chart has no Deployment")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
