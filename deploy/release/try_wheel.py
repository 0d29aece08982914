"""Verifies a token with the entra_fast that is installed: what try_wheel.sh and try_aarch64.sh run."""

import sys

import entra_fast
from entra_fast.errors import InvalidToken
from entra_fast.validate import Validator

# An RS256 token and its key from RFC 7515, appendix A.2.
KEY = {
    "kty": "RSA",
    "alg": "RS256",
    "e": "AQAB",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL"
    "-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB"
    "dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGN"
    "j8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
}
TOKEN = (
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19y"
    "b290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8"
    "W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe"
    "7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9"
    "Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
)

validator = Validator(issuer="joe", audience="none", jwks={"keys": [KEY]})
# The first is signed as it should be, so the next check rejects it: it has no audience.
for given, expected in ((TOKEN, "claim_missing"), (TOKEN[:-2] + "A" + TOKEN[-1], "signature_invalid")):
    try:
        validator.validate(given)
    except InvalidToken as error:
        found = error.code
    else:
        found = "accepted"
    if found != expected:
        raise SystemExit(f"the token must be rejected as {expected}: {found}")
print(f"    CPython {sys.version.split()[0]}: entra_fast {entra_fast.__version__} works")
