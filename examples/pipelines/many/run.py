"""`python -m many.run [NUMBER]`"""

import sys
import time

from celery_app import app  # noqa: F401 - the app that the tasks belong to
from many.tasks import pipeline

number = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
begun_at = time.monotonic()
result = pipeline(number).delay()
print(f"{number} submitted after {time.monotonic() - begun_at:.1f} s", flush=True)
print(f"the body got {result.get(timeout=3600)} jobs after {time.monotonic() - begun_at:.1f} s")
