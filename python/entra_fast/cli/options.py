"""Options that several modules of commands share."""

from __future__ import annotations

import argparse


def add_manifest_options(parser: argparse.ArgumentParser) -> None:
    """Where manifests, users and groups are."""
    group = parser.add_argument_group("applications and users")
    group.add_argument(
        "--manifests",
        action="append",
        default=[],
        metavar="[CLUSTER=]PATH",
        help="file or directory of NAIS Application manifests; may be repeated "
        "(default: ./examples/manifests, or the packaged examples)",
    )
    group.add_argument(
        "--directory",
        metavar="FILE",
        help="users and groups (default: directory.yaml next to the manifests, or the packaged example)",
    )
