"""What the admin shows, by name: for its permissions and its index. There are no tables; the room keeps the records."""

from __future__ import annotations

from django.db import models


class WaitingTask(models.Model):
    """A task that is not over."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = (("cancel_waitingtask", "Can cancel waiting task"),)
        verbose_name = "waiting task"


class DeadLetter(models.Model):
    """A task that has failed for good, or whose pipeline is kept waiting."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = (
            ("replay_deadletter", "Can replay dead letter, and see its arguments"),
            ("discard_deadletter", "Can discard dead letter"),
        )
        verbose_name = "dead letter"


class HeldAccount(models.Model):
    """An account whose submissions are stopped."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = (("release_heldaccount", "Can release held account"),)
        verbose_name = "account on hold"
        verbose_name_plural = "accounts on hold"
