#!/usr/bin/env bash
# Runs the micro benchmarks on the newest CPython of this machine: `make bench-micro`.
set -euo pipefail
cd "$(dirname "$0")/.."

newest_python() {
  for version in 3.14 3.13 3.12 3.11; do
    for candidate in "python$version" "$HOME"/.pyenv/versions/"$version".*/bin/python; do
      if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
        echo "$candidate"
        return
      fi
    done
  done
  echo python3
}

python=${PYTHON:-$(newest_python)}
venv=.venv-bench
stamp=$venv/.ready
if [ ! -e "$stamp" ] || [ requirements/dev.txt -nt "$stamp" ]; then
  echo "==> Creating $venv with $("$python" --version)"
  "$python" -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
  touch "$stamp"
fi
echo '==> Building the extension and the floors in release mode'
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
"$venv/bin/maturin" build --quiet --release --locked --interpreter "$venv/bin/python" --out "$wheels"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$wheels"/*.whl
cargo build --quiet --release --locked --package entra-core --example floor

echo '==> Timing (about a minute)'
"$venv/bin/python" -m pytest benches/micro --config-file /dev/null --rootdir . -p no:cacheprovider --quiet \
  --override-ini python_files='bench_*.py' --override-ini python_functions='bench_*' \
  --floor target/release/examples/floor --benchmark-json "$wheels/raw.json" --benchmark-quiet 2>&1 | tail -n 1
echo '==> Sending 1,000,000 distinct tokens through a cache of 20,000 (a minute or two)'
"$venv/bin/python" -m benches.memory 1000000 "$wheels/memory.json"
echo '==> Importing the library'
"$venv/bin/python" -m benches.imports "$wheels/imports.json"
"$venv/bin/python" -m benches.report_micro "$wheels/raw.json" "$wheels/memory.json" "$wheels/imports.json" benches/results/micro.json
