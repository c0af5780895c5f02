"""Outcome of a request as one number: an HTTP status, or one of these where there is none that says it."""

OK = 200
TRANSPORT = 0
CENSORED = -1
UNRECORDED = -2
NO_RESULT = -3
