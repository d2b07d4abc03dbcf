from __future__ import annotations

from django.urls import path

from . import views

app_name = "parviraptor_celery"

urlpatterns = [
    path("queue-monitoring/", views.queue_monitoring, name="queue-monitoring"),
    path("queue-health/", views.queue_health, name="queue-health"),
    path("open-queue-entries/", views.open_queue_entries, name="open-queue-entries"),
]
