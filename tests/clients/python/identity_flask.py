"""A Flask service that signs users in with MSAL's `identity` package, as its documentation shows."""

import os
from typing import Any

from flask import Flask
from identity.flask import Auth

app = Flask(__name__)
app.config.update(SECRET_KEY="s" * 32, SESSION_TYPE="filesystem", SESSION_FILE_DIR=os.environ["FOLDER"])
auth = Auth(
    app,
    oidc_authority=os.environ["ISSUER"],
    client_id=os.environ["CLIENT_ID"],
    client_credential=os.environ["CLIENT_SECRET"],
    redirect_uri=f"http://localhost:{os.environ['PORT']}/redirect",
)


@app.get("/")
@auth.login_required
def page(*, context: dict[str, Any]) -> dict[str, str]:
    return {"user": context["user"]["preferred_username"]}


if __name__ == "__main__":
    app.run("127.0.0.1", int(os.environ["PORT"]))
