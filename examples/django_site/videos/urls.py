from django.urls import path

from videos import views

urlpatterns = [
    path("", views.order, name="order"),
    path("videos/<int:pk>/", views.video, name="video"),
    path("videos/<int:pk>/file/", views.file, name="file"),
    path("videos/<int:pk>/again/", views.again, name="again"),
    path("failures/", views.failures, name="failures"),
]
