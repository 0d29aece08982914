#!/usr/bin/env bash
# Installs the wheel of this version beside the libraries that it is compared with, and compares: `make bench-peers`.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$PWD/$1/bin/python venv=$PWD/.venv-peers
shift
if ! cmp --quiet requirements/peers.txt "$venv/peers.txt"; then
  echo '==> Installing the libraries to compare with (locked) in .venv-peers'
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/peers.txt
  cp requirements/peers.txt "$venv"
fi
"$python" -m maturin build --quiet --release --locked --interpreter "$venv/bin/python" --out "$venv/wheels"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$venv"/wheels/*.whl
exec "$venv/bin/python" -m benches.peers "$@"
