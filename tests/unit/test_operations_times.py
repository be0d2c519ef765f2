"""Times that a query of the invocation log is given, against the stamps that the log writes."""

import re

import pytest

from gateway.operations.table import parse
from gateway.operations.tools import ListInvocations
from services.failures import Invalid


@pytest.mark.parametrize(
    ("given", "compared"),
    [
        ("2026-11-21T07:35:52Z", "2026-11-21T07:35:52.000Z"),
        ("2026-11-21T07:35:52.1Z", "2026-11-21T07:35:52.100Z"),
        ("2026-11-21T07:35:52.123Z", "2026-11-21T07:35:52.123Z"),
        ("2026-11-21T07:35:52.123000Z", "2026-11-21T07:35:52.123Z"),
        ("2026-11-21T07:35:52.123001Z", "2026-11-21T07:35:52.124Z"),
        ("2026-12-31T23:59:59.999999Z", "2027-01-01T00:00:00.000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_is_compared_in_the_form_of_the_log(given: str, compared: str) -> None:
    """As text `52.388Z` is before `52Z`, so a call of that second was left out."""
    params = parse(ListInvocations, {"since": given, "until": given})
    assert (params.since, params.until) == (compared, compared)


@pytest.mark.parametrize(
    "given",
    [
        *("", "yesterday", "2026-11-21", "2026-11-21T07:35:52", "2026-11-21T07:35:52+01:00", "2026-11-21 07:35:52Z"),
        *("2026-13-01T00:00:00Z", "2026-11-31T00:00:00Z", "2026-11-21T24:00:01Z", "0000-01-01T00:00:00Z"),
        *("9999-12-31T23:59:59.999999Z", "2026-11-21T07:35:52Z\n", "\uff12026-11-21T07:35:52Z"),
    ],
)
def test_what_is_no_time_is_refused_with_how_to_write_one(given: str) -> None:
    with pytest.raises(Invalid, match=re.escape("write it as 2026-11-21T07:35:52Z")):
        parse(ListInvocations, {"since": given})
