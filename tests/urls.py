"""URLs of the tests: the admin, and the monitoring of the queues."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("parviraptor_celery.urls")),
]
