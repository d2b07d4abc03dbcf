"""Django settings: the library's defaults, and what its documentation recommends."""

from benchmarks.drivers.environment import broker, django_settings, worker_settings

globals().update(
    django_settings(
        "parviraptor_celery",
        "benchmarks.drivers.job_queue",
        CELERY_BROKER_URL=broker(),
        CELERY_DB_REUSE_MAX=10_000,
        CELERY_WORKER_PREFETCH_MULTIPLIER=1,
        **{f"CELERY_{name.upper()}": value for name, value in worker_settings().items()},
    )
)
globals()["DATABASES"]["default"]["CONN_MAX_AGE"] = None
