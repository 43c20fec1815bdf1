"""`python -m captioned_clip.run`"""

from captioned_clip.tasks import pipeline
from celery_app import app  # noqa: F401 - the app that the tasks belong to

job = pipeline("https://media.example.com/interview.mp4", begin_s=0.4, seconds=2).delay().get(timeout=300)
print(f"{job['id']}: {job['output']['duration']} s")
