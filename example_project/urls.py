"""URLs: the departures, the admin and the monitoring pages of the queues."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("example_project.departures.urls")),
    path("", include("parviraptor_celery.urls")),
]
