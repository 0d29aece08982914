#!/usr/bin/env bash
# Builds a wheel for each CPython: `make wheel` (TARGET=<Rust target>, VERSIONS="3.13 3.14", OUT=dist).
#
# For this machine it takes the interpreters that are installed; for another, all versions that are supported, of
# which maturin knows what it needs. zig links for other systems, and for Linux against glibc 2.17 or musl 1.2, so
# that wheels run on every distribution that is maintained. Two builds of one commit, in any folder, give the same
# bytes: times are the commit's, and no path of the machine is left in the library. Each wheel is then tried as far
# as this machine can: docs/contributing/releases.md has the table. With STRICT=1, a wheel that could not be tried
# is a failure.
#
# It also runs in the bash of macOS (3.2) and of Git for Windows.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:?the interpreter of the virtual environment with maturin}
out=${OUT:-dist}
host=$(rustc -vV | sed -n 's/^host: //p')
target=${TARGET:-$host}

say() { printf '==> %s\n' "$*"; }

interpreters=()
if [ "$target" = "$host" ]; then
  # shellcheck disable=SC2086 # several words
  while IFS= read -r path; do interpreters+=("$path"); done < <("$python" deploy/release/interpreters.py ${VERSIONS:-})
else
  for version in ${VERSIONS:-3.11 3.12 3.13 3.14}; do interpreters+=("python$version"); done
fi
[ ${#interpreters[@]} -gt 0 ] || { say "found no CPython ${VERSIONS:-from 3.11 on}"; exit 1; }

arguments=(--release --locked --out "$out" --target "$target" --interpreter "${interpreters[@]}")
case $target in
  *-linux-gnu) arguments+=(--zig --compatibility manylinux_2_17) ;;
  *-linux-musl) arguments+=(--zig --compatibility musllinux_1_2) ;;
  "$host") ;;
  *) arguments+=(--zig) ;;
esac
rustup target list --installed 2>/dev/null | grep -qx "$target" || rustup target add "$target"

PATH=$(cd "$(dirname "$python")" && pwd):$PATH # maturin calls zig as `python3 -m ziglang`
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$PWD=/src"
# AWS-LC is C: `__FILE__` in it would be a path of this machine. Its assembler for Windows would need NASM.
flags=CFLAGS_$(printf %s "$target" | tr - _)
export "$flags=${!flags:-} -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$PWD=/src"
export AWS_LC_SYS_PREBUILT_NASM=${AWS_LC_SYS_PREBUILT_NASM:-1}

say "Building for $target: ${#interpreters[@]} interpreters (takes minutes)"
before=$(mktemp)
"$python" -m maturin build "${arguments[@]}"
wheels=()
while IFS= read -r path; do wheels+=("$path"); done < <(find "$out" -name 'entra_fast-*.whl' -newer "$before" | sort)
rm -f "$before"
"$python" deploy/release/normalise_sbom.py "${wheels[@]}"

status=0
for wheel in "${wheels[@]}"; do
  version=$(printf %s "$wheel" | sed 's/.*-cp3\([0-9]*\)-.*/3.\1/')
  tried=0
  case $target in
    "$host") deploy/release/try_wheel.sh "$("$python" deploy/release/interpreters.py "$version")" "$wheel" || tried=$? ;;
    *-linux-musl) deploy/release/try_musl.sh "$version" "$wheel" || tried=$? ;;
    aarch64-*-linux-gnu) deploy/release/try_aarch64.sh "$version" "$wheel" || tried=$? ;;
    *-windows-*) deploy/release/try_windows.sh "$version" "$wheel" || tried=$? ;;
    *) tried=3 ;;
  esac
  case $tried in
    0) ;;
    3)
      say "NOT TRIED: $(basename "$wheel"): this machine cannot run it"
      [ -z "${STRICT:-}" ] || status=1
      ;;
    *) status=$tried ;;
  esac
done
exit "$status"
