from flask import Flask

app = Flask(__name__)


@app.get("/cases")
def cases() -> dict[str, str]:
    return {"cases": "none"}
