#!/usr/bin/env bash
# Whether there is a C++ compiler that finds its own library, without which libFuzzer cannot be built.
set -euo pipefail
program=$(mktemp)
trap 'rm -f "$program"' EXIT
"${CXX:-c++}" -x c++ -o "$program" - 2> /dev/null <<< $'#include <vector>\nint main() { return std::vector<int>().size(); }'
