#!/usr/bin/env bash
# Runs the tests of a mutant with bounded CPU time and memory: some mutants never end, or allocate without end.
# Seconds of CPU, unlike those of a clock, are the same on a busy machine.
ulimit -t 25
ulimit -v 4194304 2> /dev/null || true # KiB; macOS has no such limit
exec "$@"
