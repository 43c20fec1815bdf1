"""The URLs of the project that the tests are."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("framelane/", include("framelane_celery.django.urls"))]
