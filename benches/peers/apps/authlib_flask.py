import os

import requests
from authlib.integrations.flask_oauth2 import ResourceProtector
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc7523 import JWTBearerToken
from flask import Flask
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

keys = KeySet.import_key_set(requests.get(os.environ["AZURE_OPENID_CONFIG_JWKS_URI"], timeout=10).json())
claims = jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": os.environ["AZURE_OPENID_CONFIG_ISSUER"]},
    aud={"essential": True, "value": os.environ["AZURE_APP_CLIENT_ID"]},
    exp={"essential": True},
)


class Validator(BearerTokenValidator):
    def authenticate_token(self, token_string: str) -> JWTBearerToken | None:
        try:
            token = jwt.decode(token_string, keys, algorithms=["RS256"])
            claims.validate(token.claims)
        except JoseError:
            return None
        return JWTBearerToken({**token.claims, "scope": token.claims.get("scp", "")})


app = Flask(__name__)
require = ResourceProtector()
require.register_token_validator(Validator())


@app.get("/cases")
@require("cases.read")
def cases() -> dict[str, str]:
    return {"cases": "none"}
