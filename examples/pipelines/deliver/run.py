"""`python -m deliver.run FILE ADDRESS`"""

import sys
from pathlib import Path

from celery_app import app  # noqa: F401 - the app that the tasks belong to
from deliver.tasks import pipeline

clip, address = sys.argv[1:]
order = f"order-{Path(clip).stem}"
canvas = pipeline(order, str(Path(clip).resolve()), "Ada", address, str(Path("films").resolve()))
print(f"mailed to {address}: {canvas.delay().get(timeout=300)}")
