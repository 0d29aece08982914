"""All faults at once: sidecars under load; a provider, a network, processes and a Redis server that break at
random; and a checker that knows the truth of every answer.

    python -m benches.chaos [--seed N] [--seconds S] [--part NAME] [--clients N] [--out benches/results]

| module | what belongs there |
|---|---|
| `plan` | which fault comes when: depends on nothing but the seed |
| `faults` | how each fault is made |
| `pod` | the sidecars' processes, and which connections are whose |
| `truth` | what is right, and the judgement of every answer |
| `part` | one kind of pod under load, from its start to its end |
| `report` | the table and `chaos.json` |

What must hold, in every part:
- a token is one that the provider issued for that target and that user, and has not ended;
- after an answer with `skip_cache`, nobody gets an older token than that from the same sidecar, whichever of
  its workers is asked;
- an error has a cause: a fault of the provider or of the way to it that is active or was a moment ago. Redis
  and workers are never a cause. And it is never given for a token of which a valid one was handed out before;
- nothing is exchanged for a user whose token has ended;
- what is introspected is judged as the checker knows it, once the sidecar has keys;
- every request that was sent is answered, also over SIGTERM. The one exception are requests on connections
  that belonged to a worker which was killed; they are counted apart.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
