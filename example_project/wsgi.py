"""The WSGI entry point, e.g. `waitress-serve example_project.wsgi:application`."""

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

# The handler gives the admin its styles without a collectstatic: an example's comfort. In
# production a web server or whitenoise does that.
application = StaticFilesHandler(get_wsgi_application())
