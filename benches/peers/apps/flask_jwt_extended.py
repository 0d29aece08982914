import os

import jwt
from flask import Flask, abort
from flask_jwt_extended import JWTManager, get_jwt, jwt_required

app = Flask(__name__)
app.config["JWT_ALGORITHM"] = "RS256"
app.config["JWT_DECODE_AUDIENCE"] = os.environ["AZURE_APP_CLIENT_ID"]
app.config["JWT_DECODE_ISSUER"] = os.environ["AZURE_OPENID_CONFIG_ISSUER"]
manager = JWTManager(app)
keys = jwt.PyJWKClient(os.environ["AZURE_OPENID_CONFIG_JWKS_URI"])


@manager.decode_key_loader
def key(header: dict[str, str], _: dict[str, object]) -> object:
    return keys.get_signing_key(header["kid"]).key


@app.get("/cases")
@jwt_required()
def cases() -> dict[str, str]:
    if "cases.read" not in str(get_jwt().get("scp", "")).split():
        abort(403)
    return {"cases": "none"}
