#!/usr/bin/env bash
# Installs a wheel into an empty virtual environment and verifies a token with it: INTERPRETER WHEEL.
set -euo pipefail
interpreter=$1 wheel=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$interpreter" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$wheel"
cd "$folder" # not the checkout: what is imported must be what was installed
"$folder/venv/bin/python" - <<'PY'
import sys
import entra_fast
from entra_fast.errors import InvalidToken
from entra_fast.validate import Validator

# An RS256 token and its key from RFC 7515, appendix A.2.
key = {
    "kty": "RSA", "alg": "RS256", "e": "AQAB",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR"
         "T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQ"
         "OS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q"
         "2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
}
token = (
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0"
    "cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJ"
    "dbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcO"
    "Ln6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB"
    "p0igcN_IoypGlUPQGe77Rw"
)
validator = Validator(issuer="joe", audience="none", jwks={"keys": [key]})
for given, expected in ((token, "claim_missing"), (token[:-2] + "A" + token[-1], "signature_invalid")):
    # The first is signed as it should be, so the next check rejects it: it has no audience.
    try:
        validator.validate(given)
    except InvalidToken as error:
        assert error.code == expected, error.code
    else:
        raise SystemExit("a token was accepted that must not be")
print(f"    CPython {sys.version.split()[0]}: entra_fast {entra_fast.__version__} works")
PY
