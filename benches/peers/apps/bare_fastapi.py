from fastapi import FastAPI

app = FastAPI()


@app.get("/cases")
async def cases() -> dict[str, str]:
    return {"cases": "none"}
