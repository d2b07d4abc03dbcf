from django.urls import path

from example_project.departures import views

urlpatterns = [
    path("", views.index, name="index"),
    path("departures/", views.post_departure, name="post-departure"),
]
