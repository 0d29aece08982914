"""A web application: signs users in, and shows them their cases.

Authlib signs in (authorization code with PKCE). The user's token stays here and is exchanged for one that the
API accepts; the browser gets a cookie.
"""

import os
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
from authlib.integrations.starlette_client import OAuth, OAuthError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from entra_fast.errors import ProviderError
from entra_fast.tokens import AsyncTokenClient
from entra_fast.tokens.httpx import HttpxAuth

WEB_URL = os.environ["WEB_URL"]
CASES = "dev-gcp:team-cases:cases"
CASES_URL = os.environ["CASES_URL"]
CLIENT_ID = os.environ["AZURE_APP_CLIENT_ID"]
USER_IN_NO_GROUP = 50105  # AADSTS50105: the user is in none of the groups that the API admits

oauth: Any = OAuth()  # Authlib has no types
entra = oauth.register(
    "entra",
    client_id=CLIENT_ID,
    client_secret=os.environ["AZURE_APP_CLIENT_SECRET"],
    server_metadata_url=os.environ["AZURE_APP_WELL_KNOWN_URL"],
    client_kwargs={"scope": f"openid profile api://{CLIENT_ID}/.default", "code_challenge_method": "S256"},
)
tokens = AsyncTokenClient()
api = httpx.AsyncClient(base_url=CASES_URL)
templates = Jinja2Templates("templates")


@dataclass
class Session:
    name: str
    token: str
    id_token: str
    ends: float


sessions: dict[str, Session] = {}  # with several replicas: in Redis or a database


async def home(request: Request) -> Response:
    session = sessions.get(request.session.get("id", ""))
    if session is None or session.ends < time.time():
        return page(request, "Cases", "Sign in to see your cases.")
    as_user = HttpxAuth(tokens.for_user(session.token), CASES, origins=[CASES_URL])
    try:
        response = await api.get("/cases", auth=as_user)
        response.raise_for_status()
    except (ProviderError, httpx.HTTPError) as error:
        if has_no_access(error):
            return page(request, "No access", "Only case workers may see cases.", 403, name=session.name)
        return page(request, "Not available", "Please try again later.", 502, name=session.name)
    return page(request, "Cases", name=session.name, cases=response.json())


def has_no_access(error: Exception) -> bool:
    """Whether Entra ID issues no token for this user, or the API refuses it."""
    if isinstance(error, ProviderError):
        return USER_IN_NO_GROUP in error.details.get("error_codes", [])
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 403


async def login(request: Request) -> Response:
    answer: Response = await entra.authorize_redirect(request, f"{WEB_URL}/oauth2/callback")
    return answer


async def callback(request: Request) -> Response:
    try:
        answer = await entra.authorize_access_token(request)
    except OAuthError as error:
        return page(request, "Sign-in failed", error.description or error.error, 400)
    for ended in [key for key, session in sessions.items() if session.ends < time.time()]:
        del sessions[ended]
    key = request.session["id"] = secrets.token_urlsafe()
    name = answer["userinfo"]["name"]
    sessions[key] = Session(name, answer["access_token"], answer["id_token"], answer["expires_at"])
    return RedirectResponse("/", 303)


async def logout(request: Request) -> Response:
    session = sessions.pop(request.session.get("id", ""), None)
    request.session.clear()
    provider = await entra.load_server_metadata()
    query = {"client_id": CLIENT_ID, "post_logout_redirect_uri": f"{WEB_URL}/"}
    if session is not None:
        query["id_token_hint"] = session.id_token  # otherwise the user is asked which account to sign out
    return RedirectResponse(f"{provider['end_session_endpoint']}?{urlencode(query)}", 303)


async def healthz(request: Request) -> Response:
    return Response("ok")


def page(request: Request, title: str, message: str = "", status: int = 200, **values: object) -> Response:
    return templates.TemplateResponse(
        request, "page.html", {"title": title, "message": message, **values}, status
    )


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    async with tokens, api:
        yield


app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", login),
        Route("/oauth2/callback", callback),
        Route("/logout", logout, methods=["POST"]),
        Route("/healthz", healthz),
    ],
    middleware=[
        Middleware(
            SessionMiddleware,
            secret_key=os.environ.get("SESSION_KEY") or secrets.token_urlsafe(),
            session_cookie="cases",
            https_only=WEB_URL.startswith("https:"),
        )
    ],
    lifespan=lifespan,
)
