from benchmarks.drivers.environment import django_settings

globals().update(django_settings("parviraptor", "benchmarks.drivers.parviraptor"))
