"""`python -m nightly_batch.run [COUNT [DAY]]`: submit a day's batch, and follow it to its end."""

import sys
import time
from collections import Counter
from datetime import datetime, timezone

from celery_app import app  # noqa: F401 - the app that the tasks belong to
from nightly_batch.tasks import submit

count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
day = sys.argv[2] if len(sys.argv) > 2 else datetime.now(timezone.utc).date().isoformat()
results = submit(day, [f"sku-{number}" for number in range(count)])
print(f"{count} submitted for {day}", flush=True)

states: Counter = Counter()
while sum(states[state] for state in ("SUCCESS", "FAILURE", "REVOKED")) < count:
    time.sleep(1)
    states = Counter(result.state for result in results)
    print(", ".join(f"{number} {state}" for state, number in sorted(states.items())), flush=True)
sys.exit(0 if states["SUCCESS"] == count else 1)
