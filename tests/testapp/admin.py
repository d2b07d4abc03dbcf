"""Two queues in the admin, as a user registers them."""

from django.contrib import admin

from parviraptor_celery.admin import JobAdmin
from tests.testapp.models import FreeJob, LaneJob


@admin.register(LaneJob)
class LaneJobAdmin(JobAdmin):
    pass


@admin.register(FreeJob)
class FreeJobAdmin(JobAdmin):
    pass
