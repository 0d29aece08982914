from fastapi import FastAPI

from entra_fast import Require
from entra_fast.integrations.fastapi import EntraID

entra = EntraID(scopes={"cases.read": "Read cases"})
app = FastAPI(lifespan=entra.lifespan, **entra.swagger())


@app.get("/cases", dependencies=[entra(Require(scope="cases.read"))])
async def cases() -> dict[str, str]:
    return {"cases": "none"}
