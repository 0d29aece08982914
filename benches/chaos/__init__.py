"""All faults at once: sidecars under load; a provider, a network, processes and a Redis server that fail at
random; and a checker that knows the correct answer to every request.

    python -m benches.chaos [--seed N] [--seconds S] [--part NAME] [--clients N] [--out benches/results]

| module | what belongs there |
|---|---|
| `plan` | which fault occurs when: depends only on the seed |
| `faults` | how each fault is injected |
| `pod` | the sidecars' processes, and which connections belong to which |
| `truth` | the expected answers, and the check of every answer |
| `part` | one kind of pod under load, from start to end |
| `report` | the table and `chaos.json` |

What must hold, in every part:
- a token was issued by the provider for that target and that user, and has not expired;
- after an answer with `skip_cache`, no caller gets an older token from the same sidecar, from any of its
  workers;
- an error has a cause: a fault of the provider or of the network that is active or was active a moment ago.
  Redis and workers are never a cause, and a request for which a valid token is cached never fails;
- nothing is exchanged for a user whose token has expired;
- introspection agrees with the checker, once the sidecar has keys;
- every request that was sent is answered, also over SIGTERM. The only exception is requests on connections
  that belonged to a worker which was killed; they are counted apart.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
