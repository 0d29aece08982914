"""Reports the number of open cases: a job that calls the API for cases on its own behalf."""

import os

import httpx

from entra_fast.tokens import TokenClient
from entra_fast.tokens.httpx import HttpxAuth

CASES = "dev-gcp:team-cases:cases"
CASES_URL = os.environ["CASES_URL"]

with TokenClient() as tokens, httpx.Client(auth=HttpxAuth(tokens, CASES, origins=[CASES_URL])) as api:
    statistics = api.get(f"{CASES_URL}/statistics").raise_for_status().json()

print(f"{statistics['open']} open cases")
