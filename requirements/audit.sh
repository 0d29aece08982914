#!/usr/bin/env bash
# Checks the dependencies: `make audit`. Rust by cargo-deny (deny.toml), Python by pip-audit.
#
# An online database may be out of reach. Then the script prints NOT CHECKED, again in the last line, and
# succeeds, because nothing bad was found; with STRICT=1 (for a CI that needs certainty) it fails.
#
# `make test-audit` proves that it finds what it should: there, AUDIT_* name other files and recorded databases.
set -euo pipefail
cd "$(dirname "$0")/.."
read -ra manifests <<< "${AUDIT_MANIFESTS:-Cargo.toml rust/fuzz/Cargo.toml}"
read -ra locked <<< "${AUDIT_REQUIREMENTS:-$(echo requirements/*.txt)}"

tools=$PWD/target/tools
export PATH="$PATH:$tools/bin"
failed=() unchecked=()

cargo_deny=0.20.2
if ! command -v cargo-deny > /dev/null; then
    echo "audit: cargo-deny is not installed: installing $cargo_deny into ${tools#"$PWD"/} (once, takes minutes)"
    cargo install --quiet --locked --version "=$cargo_deny" --root "$tools" --target-dir target/tools-build cargo-deny
fi

log=$(mktemp)
trap 'rm -rf "$log"*' EXIT
config=$PWD/deny.toml
if [ -n "${AUDIT_RUST_DB:-}" ]; then
    # cargo-deny wants a URL with a domain; git is told what that stands for.
    stand_in=https://advisories.invalid/db config=$log.deny.toml
    export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.$AUDIT_RUST_DB.insteadOf" GIT_CONFIG_VALUE_0=$stand_in
    sed "/^\[advisories\]/a db-urls = [\"$stand_in\"]\ndb-path = \"$log.db\"\ngit-fetch-with-cli = true" deny.toml > "$config"
fi

deny() { cargo deny --manifest-path "$1" --config "$config" --locked --log-level error "${@:2}"; }

for manifest in "${manifests[@]}"; do
    echo "audit: $manifest: bans, licences, sources"
    deny "$manifest" check --hide-inclusion-graph bans licenses sources || failed+=("$manifest: bans, licences or sources")
done

if deny "${manifests[0]}" fetch db > "$log" 2>&1; then
    for manifest in "${manifests[@]}"; do
        echo "audit: $manifest: advisories"
        deny "$manifest" --offline check --hide-inclusion-graph advisories || failed+=("$manifest: advisories")
    done
else
    echo 'audit: the database of Rust advisories (github.com/rustsec/advisory-db) cannot be fetched:'
    tail -n 3 "$log"
    unchecked+=("Rust advisories")
fi

pip_audit=2.10.1
if [ ! -x "$tools/pip-audit/bin/pip-audit" ]; then
    echo "audit: installing pip-audit $pip_audit into ${tools#"$PWD"/} (once)"
    "${PYTHON:-python3}" -m venv "$tools/pip-audit"
    "$tools/pip-audit/bin/pip" install --quiet --disable-pip-version-check "pip-audit==$pip_audit"
fi
# Its exit code and "No known vulnerabilities found" cannot be trusted: it says so too of packages that its service
# does not know, such as all of them when that is a mirror without advisories. So count answers, and ask first about
# a version that is known to be vulnerable.
cat > "$log.py" << 'PYTHON'
import json, sys

packages = json.load(open(sys.argv[1]))["dependencies"]
skipped = [package for package in packages if "skip_reason" in package]
vulnerable = [package for package in packages if package.get("vulns")]
for package in vulnerable:
    for found in package["vulns"]:
        fixed = ", ".join(found["fix_versions"]) or "no version"
        print(f"audit: {package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
print(f"audit: {len(packages) - len(skipped)} of {len(packages)} packages known to the service, {len(vulnerable)} vulnerable")
sys.exit(1 if vulnerable else 3 if skipped or not packages else 0)
PYTHON

service=()
[ -z "${AUDIT_OSV_URL:-}" ] || service=(--vulnerability-service osv --osv-url "$AUDIT_OSV_URL")

# 0: nothing is known against any of them; 1: something is; 3: the service cannot say.
ask() {
    rm -f "$log.json"
    "$tools/pip-audit/bin/pip-audit" --progress-spinner off --timeout 10 --disable-pip "${service[@]}" "${@:2}" \
        --requirement "$1" --format json --output "$log.json" > "$log" 2>&1 || true
    [ -s "$log.json" ] || { tail -n 1 "$log" | cut -c 1-300; return 3; }
    "$tools/pip-audit/bin/python" "$log.py" "$log.json"
}

echo 'jinja2==2.10' > "$log.txt"
echo 'audit: Python advisories: does the service know CVE-2019-10906 (jinja2 2.10)?'
answer=0
ask "$log.txt" --no-deps || answer=$?
if [ "$answer" -eq 1 ]; then
    for requirements in "${locked[@]}"; do
        echo "audit: $requirements: advisories"
        answer=0
        ask "$requirements" --require-hashes || answer=$?
        case $answer in
            0) ;;
            1) failed+=("$requirements: advisories") ;;
            *) unchecked+=("$requirements: advisories of some packages") ;;
        esac
    done
else
    echo 'audit: it does not, so what it says of other packages means nothing'
    unchecked+=("Python advisories")
fi

join() { local IFS=';'; echo "${*/#/ }"; }
if [ ${#failed[@]} -gt 0 ]; then
    echo "audit: FAILED:$(join "${failed[@]}")" >&2
fi
if [ ${#unchecked[@]} -gt 0 ]; then
    echo "audit: NOT CHECKED, because out of reach:$(join "${unchecked[@]}")" >&2
fi
[ ${#failed[@]} -eq 0 ] || exit 1
[ ${#unchecked[@]} -eq 0 ] || [ -z "${STRICT:-}" ] || exit 1
