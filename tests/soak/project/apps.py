from django.apps import AppConfig


class SoakConfig(AppConfig):
    name = "tests.soak.project"
    label = "soak"
    default_auto_field = "django.db.models.BigAutoField"
