"""`python -m product_videos.run`: three products, and the picture of one of them cannot be fetched."""

from celery_app import app  # noqa: F401 - the app that the tasks belong to
from product_videos.tasks import pipeline

PRODUCTS = [
    {"sku": "boot", "name": "The boot", "picture_url": "https://media.example.com/boot.png"},
    {"sku": "hat", "name": "The hat", "picture_url": "http://intranet.example.com/hat.png"},  # not public HTTPS
    {"sku": "sneaker", "name": "The sneaker", "picture_url": "https://media.example.com/sneaker.png"},
]

found = pipeline(PRODUCTS).delay().get(timeout=300)
for sku, job_id in found["made"].items():
    print(f"{sku}: {job_id}")
for sku, failure in found["missing"].items():
    print(f"{sku}: {failure['code']}, replay it with: celery -A celery_app framelane dead replay {failure['letter']}")
