from benchmarks.drivers.environment import django_settings

globals().update(
    django_settings("jaiminho", JAIMINHO_CONFIG={"PUBLISH_STRATEGY": "keep-order"}),
)
