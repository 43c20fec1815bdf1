"""`python -m talking_head.run`"""

from pathlib import Path

from celery_app import app  # noqa: F401 - the app that the tasks belong to
from talking_head.tasks import pipeline

target = Path("talking_head.mp4").resolve()
print(pipeline("https://media.example.com/talk.mp4", str(target)).delay().get(timeout=300)["path"])
