"""The machine endpoint that takes departures in, and a page that shows how far things are."""

import json
from typing import Any

from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from example_project.departures import overview
from example_project.departures.forms import DepartureForm
from example_project.departures.intake import accept
from example_project.departures.models import Departure

SHOWN_OF_BAD_INPUT = 80


# Exempt because the callers are machines: there is no session that a forged form could ride on.
@csrf_exempt
@require_POST
def post_departure(request: HttpRequest) -> JsonResponse:
    """Accept one departure as JSON: 201 with its id, 400 with the errors, 409 if it is known."""
    try:
        data = parse_object(request.body)
    except ValueError as error:
        return JsonResponse({"errors": {"__all__": [str(error)]}}, status=400)
    form = DepartureForm(data)
    if form.is_duplicate:
        return _known(form.instance)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    return _accept(form.save(commit=False))


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """Counts, and links to where the details are."""
    return render(request, "departures/index.html", overview.collect())


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in this request body; ValueError says what it is instead."""
    try:
        data = json.loads(body)
    except RecursionError:
        raise ValueError("This JSON is nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"This is not JSON: {error}") from None
    if not isinstance(data, dict):
        shown = json.dumps(data)[:SHOWN_OF_BAD_INPUT]
        raise ValueError(f"A departure is a JSON object, this is something else: {shown}")
    return data


def _accept(departure: Departure) -> JsonResponse:
    try:
        accept(departure)
    except IntegrityError:
        # Another request was faster than the form's check; or is something else wrong?
        if not Departure.objects.same_as(departure).exists():
            raise
        return _known(departure)
    return JsonResponse({"id": departure.pk}, status=201)


def _known(departure: Departure) -> JsonResponse:
    message = f"{departure} at {departure.departed_at.isoformat()} was accepted already."
    return JsonResponse({"errors": {"__all__": [message]}}, status=409)
