#!/usr/bin/env bash
# What must hold before a release, without building anything: `make release-check` (TAG=v1.2.3).
set -euo pipefail
cd "$(dirname "$0")/../.."
problems=()
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[ -z "${TAG:-}" ] || [ "$TAG" = "v$version" ] || problems+=("the tag is $TAG, the version in Cargo.toml is $version")
grep -q "^## $version" CHANGELOG.md || problems+=("CHANGELOG.md has no section '## $version'")
grep -qi "^## $version.*unreleased" CHANGELOG.md && [ -n "${TAG:-}" ] && problems+=("CHANGELOG.md calls $version unreleased")
[ -z "$(git status --porcelain)" ] || problems+=("there are changes that are not committed")
cargo metadata --locked --format-version 1 --no-deps >/dev/null 2>&1 || problems+=("Cargo.lock does not fit Cargo.toml")
if [ ${#problems[@]} -gt 0 ]; then
  printf 'not ready for a release: %s\n' "${problems[@]}" >&2
  exit 1
fi
echo "version $version is ready for a release"
