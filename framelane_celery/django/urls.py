"""``path("framelane/", include("framelane_celery.django.urls"))``"""

from __future__ import annotations

from django.urls import path

from framelane_celery.django import views

app_name = "framelane"

urlpatterns = [
    path("webhook/", views.webhook, name="webhook"),
    path("status/<path:task_id>/", views.status, name="status"),  # an id that a project chose may have a slash
]
