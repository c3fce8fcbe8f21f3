"""The token that a form must carry, so that no other site's page can send it."""

from __future__ import annotations

from typing import Final

from flask import request

_OLD: Final = (
    "The form is too old, or was not made by this service: it is filled in again below, send it"
    " once more."
)


def token() -> str:
    """The hidden field's value; it is bound to the browser's cookie."""
    from flask_wtf.csrf import generate_csrf

    made: str = generate_csrf()
    return made


def problem() -> str | None:
    """What is wrong with the token that a form sent; None where nothing is."""
    from flask_wtf.csrf import validate_csrf
    from wtforms.validators import ValidationError

    try:
        validate_csrf(request.form.get("csrf_token"))
    except ValidationError:
        return _OLD
    return None
