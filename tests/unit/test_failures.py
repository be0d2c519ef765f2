from typing import Any

import msgspec

from gateway.failures import http_answer
from services.failures import Conflict


def test_a_fact_never_takes_the_place_of_a_member_of_the_problem() -> None:
    facts: dict[str, Any] = {"status": "active", "title": "Mine", "success": True, "skill": "main/a"}
    body = msgspec.json.decode(http_answer(Conflict("no", **facts), "r1").body)
    assert body == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "code": "conflict",
        "detail": "no",
        "success": False,
        "request_id": "r1",
        "skill": "main/a",
    }
