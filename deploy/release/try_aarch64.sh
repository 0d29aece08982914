#!/usr/bin/env bash
# Verifies a token with a Linux wheel for aarch64 on another machine: VERSION WHEEL. Debian's Python for arm64, in a
# folder of its own, runs under Debian's qemu-user-static. Ends with status 3 where these cannot be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) version=$1 wheel=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
[ "$version" = 3.11 ] || exit 3
command -v apt-get >/dev/null && command -v dpkg >/dev/null || exit 3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir -p state/lists/partial cache/archives/partial native root site
touch state/status

# apt's own state is not touched: nothing is installed, and no architecture is added to the system.
foreign=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root -o Dir::State="$folder/state"
  -o Dir::State::status="$folder/state/status" -o Dir::Cache="$folder/cache")
packages=(libc6 libgcc-s1 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libuuid1
  libpython3.11-minimal libpython3.11-stdlib python3.11-minimal)
apt-get "${foreign[@]}" update >/dev/null 2>&1 || exit 3
apt-get "${foreign[@]}" download "${packages[@]}" >/dev/null 2>&1 || exit 3
(cd native && apt-get -qq -o APT::Sandbox::User=root download qemu-user-static >/dev/null 2>&1) || exit 3
for package in ./*.deb; do dpkg -x "$package" root; done
dpkg -x native/*.deb native

python3 -m zipfile -e "$wheel" site
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --implementation cp \
  --platform manylinux_2_17_aarch64 --python-version 3.11 --dest packages orjson
python3 -m zipfile -e packages/*.whl site
native/usr/bin/qemu-aarch64-static -L root -E PYTHONPATH="$folder/site" root/usr/bin/python3.11 "$here/try_wheel.py"
