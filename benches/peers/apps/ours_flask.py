from flask import Flask

from entra_fast import Require
from entra_fast.integrations.flask import EntraID

app = Flask(__name__)
entra = EntraID(app)


@app.get("/cases")
@entra.require(Require(scope="cases.read"))
def cases() -> dict[str, str]:
    return {"cases": "none"}
