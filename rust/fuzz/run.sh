#!/usr/bin/env bash
# Builds the fuzz targets and runs them in turn: `make fuzz-smoke` and `make fuzz` (docs/contributing/fuzzing.md).
#
# run.sh RUNS SECONDS [TARGET...]: the maximum number of runs (-1: no limit) and of seconds for each target; all
# targets unless some are named. INPUT=file runs that file instead; SANITIZER=address finds invalid memory accesses too.
set -euo pipefail
cd "$(dirname "$0")/../.."

runs=$1 seconds=$2
shift 2
targets=("$@")
[ $# -gt 0 ] || for source in rust/fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$source" .rs)"); done
for target in "${targets[@]}"; do
    [ -f "rust/fuzz/fuzz_targets/$target.rs" ] || { echo "fuzz: there is no target '$target'; see rust/fuzz/fuzz_targets" >&2; exit 2; }
done

# libFuzzer itself is C++.
rust/fuzz/can_build_cxx.sh || { echo 'fuzz: a C++ compiler with its library is needed (c++, or CXX)' >&2; exit 1; }

# The options that cargo-fuzz passes to the compiler. Nothing else of it is needed, so it need not be installed,
# and the lock file is respected.
flags=(-Cpasses=sancov-module -Cllvm-args=-simplifycfg-branch-fold-threshold=0 -Ccodegen-units=1 --cfg fuzzing)
for option in level=4 inline-8bit-counters pc-table trace-compares stack-depth; do
    flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done
sanitizer=${SANITIZER:-none}
if [ "$sanitizer" != none ]; then
    # The option that switches a sanitizer on is only for nightly compilers; the sanitizer itself comes with all.
    export RUSTC_BOOTSTRAP=1
    flags+=("-Zsanitizer=$sanitizer")
fi
host=$(rustc -vV | sed -n 's/^host: //p')
build=target/fuzz-$sanitizer
echo "fuzz: building the targets (the first time takes minutes)"
# --target, although it is the host's own: else the flags would hold for build scripts and macros too.
RUSTFLAGS="${flags[*]} ${RUSTFLAGS:-}" cargo build --quiet --locked --release --bins \
    --manifest-path rust/fuzz/Cargo.toml --target-dir "$build" --target "$host"
bin=$build/$host/release

if [ -n "${INPUT:-}" ]; then
    [ ${#targets[@]} -eq 1 ] || { echo 'fuzz: INPUT needs one TARGET' >&2; exit 2; }
    exec "$bin/${targets[0]}" "$INPUT"
fi

# A smoke run starts from the seeds alone, so that it takes the same time everywhere; a long one continues where
# the last one stopped.
corpus=rust/fuzz/corpus
if [ "$runs" -ge 0 ]; then
    corpus=$build/smoke
    rm -rf "$corpus"
fi
"$bin/seeds" "$corpus"

failed=()
for target in "${targets[@]}"; do
    artifacts=rust/fuzz/artifacts/$target
    log=$build/$target.log
    mkdir -p "$artifacts" "$corpus/$target"
    options=(-runs="$runs" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1)
    case $target in
        rsa_differential) options+=(-max_len=48 -len_control=0) ;; # short programs, at once in full length
        *) options+=(-max_len=8192 -dict=rust/fuzz/dictionaries/json.dict) ;;
    esac
    echo "fuzz: $target: up to $seconds s, log in $log"
    status=0
    "$bin/$target" "$corpus/$target" "${options[@]}" -artifact_prefix="$artifacts/" > "$log" 2>&1 || status=$?
    grep -a '^rsa_differential:' "$log" || true
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ "$status" -eq 0 ]; then
        echo "fuzz: $target: ${executions:?} executions, nothing found"
    else
        failed+=("$target")
        grep -a -A 4 -E 'panicked at|ERROR: ' "$log" || tail -n 20 "$log"
        echo "fuzz: $target: FAILED after ${executions:-?} executions; the input:"
        sed -n 's/.*Test unit written to //p' "$log"
        echo "fuzz: again with: make fuzz TARGET=$target INPUT=that file"
    fi
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: FAILED: ${failed[*]}" >&2; exit 1; }
