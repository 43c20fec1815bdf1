from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("videos.urls")),
    path("framelane/", include("framelane_celery.django.urls")),
    path("admin/", admin.site.urls),
]
