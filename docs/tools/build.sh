#!/usr/bin/env bash
# Builds the documentation site without a network, and checks it: `make docs`. The folders with the programs of the
# project and of the site's tools are arguments.
set -euo pipefail
cd "$(dirname "$0")/../.."
project=$1
tools=$2
rm -rf target/site
"$project/python" docs/tools/prepare.py
PATH="$tools:$PATH" "$tools/zensical" build --clean --strict
"$project/python" docs/tools/check_site.py
"$tools/lychee" --offline --include-fragments --index-files index.html --no-progress --root-dir "$PWD/target/site" 'target/site/**/*.html'
echo "==> target/site/index.html"
