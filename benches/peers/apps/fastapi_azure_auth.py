import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Security
from fastapi_azure_auth import SingleTenantAzureAuthorizationCodeBearer

CLIENT_ID = os.environ["AZURE_APP_CLIENT_ID"]
azure = SingleTenantAzureAuthorizationCodeBearer(
    app_client_id=CLIENT_ID,
    tenant_id=os.environ["AZURE_APP_TENANT_ID"],
    scopes={f"api://{CLIENT_ID}/cases.read": "Read cases"},
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await azure.openid_config.load_config()
    yield


app = FastAPI(
    lifespan=lifespan,
    swagger_ui_oauth2_redirect_url="/oauth2-redirect",
    swagger_ui_init_oauth={"usePkceWithAuthorizationCodeGrant": True, "clientId": CLIENT_ID},
)


@app.get("/cases", dependencies=[Security(azure, scopes=["cases.read"])])
async def cases() -> dict[str, str]:
    return {"cases": "none"}
