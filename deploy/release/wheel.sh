#!/usr/bin/env bash
# Builds a wheel for each CPython that this machine has: `make wheel` (TARGET=<Rust target>, OUT=dist).
#
# Linux wheels are linked by zig against glibc 2.17 or musl 1.2, so that they run on every distribution that is
# maintained. Two builds of one commit, in any folder, give the same bytes: times are the commit's, and no path of
# the machine is left in the library. Each wheel is then installed into an empty environment and tried, where its
# target is this machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:?the interpreter of the virtual environment with maturin}
out=${OUT:-dist}
host=$(rustc -vV | sed -n 's/^host: //p')
target=${TARGET:-$host}

say() { printf '==> %s\n' "$*"; }

versions() { # every CPython from 3.11 that can be found, without duplicates
  "$python" - <<'PY'
import shutil, subprocess, sys
from pathlib import Path
found = {}
for minor in range(11, 20):
    candidates = [f"python3.{minor}", *map(str, sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3")))]
    for candidate in (*candidates, sys.executable):
        path = shutil.which(candidate)
        check = f"import sys; sys.exit(sys.version_info[:2] != (3, {minor}) or sys.implementation.name != 'cpython')"
        if path and subprocess.run([path, "-c", check], capture_output=True).returncode == 0:
            found.setdefault(minor, path)
print(*found.values(), sep="\n")
PY
}

PATH=$(dirname "$python"):$PATH # maturin calls zig as `python3 -m ziglang`
mapfile -t interpreters < <(versions)
arguments=(--release --locked --out "$out" --target "$target" --interpreter "${interpreters[@]}")
case $target in
  *-linux-gnu) arguments+=(--zig --compatibility manylinux_2_17) ;;
  *-linux-musl) arguments+=(--zig --compatibility musllinux_1_2) ;;
esac
rustup target list --installed 2>/dev/null | grep -qx "$target" || rustup target add "$target"

cargo_home=${CARGO_HOME:-$HOME/.cargo}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$PWD=/src"
# AWS-LC is C: `__FILE__` in it would be a path of this machine.
flags=CFLAGS_${target//-/_}
export "$flags=${!flags:-} -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$PWD=/src"

say "Building for $target: ${#interpreters[@]} interpreters (takes minutes)"
"$python" -m maturin build "${arguments[@]}"
"$python" deploy/release/normalise_sbom.py "$PWD" "$out"/*.whl

if [ "$target" != "$host" ]; then
  status=0
  case $target in
    aarch64-*-linux-gnu)
      wheel=$(find "$out" -name 'entra_fast-*cp311-*aarch64.whl' | sort | tail -n 1)
      deploy/release/try_aarch64.sh "${wheel:?there is no wheel for CPython 3.11, which is the one to try}" || status=$?
      ;;
    *) status=3 ;;
  esac
  [ "$status" -ne 3 ] || say "NOT TRIED: this machine is $host"
  exit $((status == 3 ? 0 : status))
fi
for interpreter in "${interpreters[@]}"; do
  tag=$("$interpreter" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
  wheel=$(find "$out" -name "entra_fast-*-$tag-$tag-*.whl" | sort | tail -n 1)
  deploy/release/try_wheel.sh "$interpreter" "$wheel"
done
