"""Cases and the persons that they are about: an API in FastAPI.

The names of persons come from another API, which is called on behalf of the user.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from entra_fast import Claims, Require
from entra_fast.errors import ProviderError
from entra_fast.integrations.fastapi import BearerToken, EntraID
from entra_fast.tokens import AsyncTokenClient
from entra_fast.tokens.httpx import HttpxAuth

PERSONS = "dev-gcp:team-persons:persons"
PERSONS_URL = os.environ["PERSONS_URL"]
CASES = {"1001": ("p-1", "open"), "1002": ("p-2", "open"), "1003": ("p-3", "closed")}

entra = EntraID()
tokens = AsyncTokenClient()
persons = httpx.AsyncClient(base_url=PERSONS_URL)

CaseWorker = Annotated[Claims, entra(Require(user=True, scope="cases.read"))]
Statistician = Annotated[Claims, entra(Require(app=True, role="statistics.read"))]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with entra.lifespan(app), tokens, persons:
        yield


app = FastAPI(lifespan=lifespan)


class Case(BaseModel):
    number: str
    status: str
    person: str
    read_by: str | None


@app.get("/cases")
async def cases(user: CaseWorker, token: Annotated[BearerToken, entra.token]) -> list[Case]:
    as_user = HttpxAuth(tokens.for_user(token), PERSONS, origins=[PERSONS_URL])
    ids = [person for person, _ in CASES.values()]
    try:
        response = await persons.get("/persons", params={"id": ids}, auth=as_user)
        response.raise_for_status()
    except (ProviderError, httpx.HTTPError) as error:
        raise HTTPException(502, "the names of persons are not available") from error
    answer = response.json()
    return [
        Case(number=number, status=status, person=answer["names"][person], read_by=answer["read_by"])
        for number, (person, status) in CASES.items()
    ]


@app.get("/statistics")
async def statistics(job: Statistician) -> dict[str, int]:
    return {"open": sum(status == "open" for _, status in CASES.values())}


@app.get("/healthz")
async def healthz() -> str:
    return "ok"
