"""A customer's clip is uploaded, rendered, fetched and mailed: upload → render → download → mail."""

import os
import smtplib
from email.message import EmailMessage
from pathlib import Path

from celery import chain, shared_task

import framelane_celery as framelane
from framelane_celery import FramelaneClient, FramelaneTask, GuardedTask, RenderRequest
from framelane_celery.models import TextElement, VideoElement
from framelane_celery.settings import settings_of


@shared_task(base=GuardedTask, bind=True)
def upload(self, path: str) -> str:
    """Bring a file to Framelane. A second run, after a worker that died, uploads it once more and harms nobody."""
    with FramelaneClient.from_settings(settings_of(self.app)) as client:
        return client.upload_file(path).source_url


@shared_task(base=FramelaneTask)
def greeting(source_url: str, name: str) -> RenderRequest:
    """Five seconds of the clip, with the customer's name."""
    clip = VideoElement(source_url=source_url).lasting(5)
    return RenderRequest(elements=[clip, TextElement(text=f"For {name}", duration=5, y="80%")])


@shared_task(base=GuardedTask, bind=True, autoretry_for=(OSError, smtplib.SMTPException), retry_backoff=True)
def mail(self, file: dict, address: str) -> str:
    """Send the film. ``file`` is what `download` has written.

    Guarded: it is not lost, and once its result is stored it does not run again. SMTP itself has no exactly-once: a
    worker that dies between the server's "250" and the stored result sends the mail again. The second one has the same
    Message-ID, made of the task's id, by which mail servers and programs tell a double.
    """
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "films@shop.example", address, "Your film"
    message["Message-ID"] = f"<{self.request.id}@shop.example>"
    message.set_content("Your film is attached.")
    path = Path(file["path"])
    message.add_attachment(path.read_bytes(), maintype="video", subtype="mp4", filename=path.name)
    host, port = os.environ.get("MAIL_HOST", "localhost"), int(os.environ.get("MAIL_PORT", "1025"))
    with smtplib.SMTP(host, port, timeout=30) as server:
        server.send_message(message)
    return message["Message-ID"]


def pipeline(order: str, clip: str, name: str, address: str, folder: str):
    """The canvas. All its ids are made of the order's: a double click is the same piece of work, and one mail."""
    steps = [
        upload.s(clip),
        greeting.s(name),
        framelane.download.s(f"{folder}/{order}.mp4"),
        mail.s(address),
    ]
    return chain([step.set(task_id=f"{order}-{step.task.rpartition('.')[2]}") for step in steps])
