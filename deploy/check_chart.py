"""The pod of the example chart is that of the example for kustomize: RENDERED_KUSTOMIZATION RENDERED_CHART.

Both are written out, so that each can be read; this keeps the sidecar, its volumes and its time to end the
same. What the values of the examples choose is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

CHOSEN = ("image", "imagePullPolicy", "resources", "envFrom")
CHOSEN_VARIABLES = ("ENTRA_FAST_WORKERS", "ENTRA_FAST_LOG_LEVEL")
BY_NAME = ("env", "volumeMounts")
"""Lists whose order means nothing."""


def sidecar(pod: dict[str, Any]) -> dict[str, Any]:
    """The sidecar's container, and what its pod must have for it."""
    (container,) = (each for each in pod["initContainers"] if each["name"] == "entra-fast")
    container = {name: value for name, value in container.items() if name not in CHOSEN}
    container["env"] = [each for each in container["env"] if each["name"] not in CHOSEN_VARIABLES]
    for name in BY_NAME:
        container[name] = sorted(container[name], key=lambda each: each["name"])
    volumes = sorted(pod["volumes"], key=lambda each: each["name"])
    return {"seconds": pod["terminationGracePeriodSeconds"], "container": container, "volumes": volumes}


def deployed(rendered: str) -> dict[str, Any]:
    """The same of the Deployment among rendered manifests."""
    documents = yaml.safe_load_all(Path(rendered).read_text())
    (deployment,) = (each for each in documents if each and each["kind"] == "Deployment")
    return sidecar(deployment["spec"]["template"]["spec"])


def main(kustomization: str, chart: str) -> int:
    expected, found = deployed(kustomization), deployed(chart)
    if found != expected:
        print(f"the chart's sidecar differs:\n{yaml.dump(found)}\nfrom\n{yaml.dump(expected)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
