"""Fan-out, round trips and slow clients beside their peers, in one run: every ratio is to a floor or a peer of it.

CPU is that of the server's process, from its own accounting; the clients are processes of their own.
"""

import json
import shutil
import statistics
import subprocess
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import msgspec
import pytest

from tests.bench.push import rpc, slow
from tests.bench.push.pace import BURST
from tests.support.bench import machine
from tests.support.load import idle_share
from tests.support.service import get, running, wait_for_skills, write_skill

pytestmark = pytest.mark.bench

CLIENTS, EVENTS, PER_S = 1000, 40, 10
CALLS, ROUNDS = 480, 31
NODE = Path(__file__).parent / "push" / "node"


def told(*words: str) -> dict[str, float]:
    """The JSON that a benchmark's process says last."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=600, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


@cache
def fan_out(module: str, name: str, clients: int = CLIENTS) -> dict[str, float]:
    return told(sys.executable, "-m", f"tests.bench.push.{module}", name, str(clients), str(EVENTS), str(PER_S))


# A machine's load moves within minutes: what is bounded is measured beside its own floor.
FLOOR = (sys.executable, "-m", "tests.bench.push.peers", "floor", str(CLIENTS), str(EVENTS), str(PER_S))

JOINED_FLOOR = (sys.executable, "-m", "tests.bench.push.peers", "joined-floor", str(CLIENTS), str(EVENTS), str(PER_S))


@cache
def floor() -> dict[str, float]:
    return fan_out("peers", "floor")


@pytest.fixture(scope="module", autouse=True)
def head() -> None:
    print(f"\n{machine('uvicorn', 'websockets', 'uvloop')}; {CLIENTS} clients, {EVENTS} events")
    print(f"{'':24}{'us/delivery':>12}{'x floor':>9}{'last ms':>9}{'burst/s':>12}{'burst us':>9}{'KiB':>7}")


def row(name: str, cost: dict[str, float]) -> dict[str, float]:
    ratio = cost["us"] / floor()["us"]
    print(
        f"{name:24}{cost['us']:12.2f}{ratio:9.2f}{cost['last_ms']:9.1f}{cost['burst_per_s']:12.0f}"
        f"{cost['burst_us']:9.2f}{cost['kib']:7.1f}"
    )
    return cost


@pytest.mark.parametrize("name", ["floor", "broadcast", "fastapi", "sse-starlette"])
def test_what_the_peers_cost(name: str) -> None:
    assert row(name, fan_out("peers", name))["us"] > 0


@pytest.mark.parametrize("name", ["ws", "socket.io"])
def test_what_the_peers_in_node_cost(name: str) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    if not (NODE / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True, capture_output=True, timeout=300)
    cost = told("node", str(NODE / "server.mjs"), name, str(CLIENTS), str(EVENTS), str(PER_S), sys.executable)
    assert row(f"npm {name}", cost)["us"] > 0


@pytest.mark.parametrize(("name", "times_floor", "kib_max"), [("ws", 1.6, 20), ("sse", 2.2, 12)])
def test_an_event_costs_little_more_than_its_write(name: str, times_floor: float, kib_max: float) -> None:
    """Budgets N1 and N3."""
    before = told(*FLOOR)
    cost = row(f"skillwire {name}", fan_out("ours", name))
    beside = (before["us"] + told(*FLOOR)["us"]) / 2
    print(f"{'':24}{cost['us'] / beside:21.2f} of the floor measured before and after")
    assert cost["us"] <= times_floor * beside
    assert cost["kib"] <= kib_max


@pytest.mark.parametrize("name", ["asgi-ws", "asgi-sse"])
def test_what_the_fallback_through_asgi_costs(name: str) -> None:
    assert row(f"skillwire {name}", fan_out("ours", name))["us"] > 0


def test_events_of_one_turn_are_one_write() -> None:
    """Budget N2, by the server's CPU: a million a second by the clock takes a machine with nobody else on it. The
    floor that counts writes all events of a turn at once, as this does: what is above it is the notifier's own."""
    joined = fan_out("peers", "joined-floor")
    costs = {
        "skillwire": fan_out("ours", "ws"),
        "a write for each connection": joined,
        "broadcast": fan_out("peers", "broadcast"),
        "a write for each event": floor(),
    }
    for name, cost in costs.items():
        print(
            f"{f'{BURST} in a turn, {name}':42}{cost['burst_per_s'] / 1e6:8.2f} M deliveries/s by the clock,"
            f"{1 / cost['burst_us']:8.2f} M by the server's CPU ({cost['burst_us']:.2f} us each)"
        )
    print("go centrifuge: " + ("not built here" if shutil.which("go") else "there is no go on this machine"))
    ours = costs["skillwire"]
    assert ours["burst_us"] <= 1.0  # a million for a second of one core
    assert ours["burst_us"] <= 2.0 * (joined["burst_us"] + told(*JOINED_FLOOR)["burst_us"]) / 2
    assert ours["burst_us"] <= 0.3 * floor()["burst_us"]
    assert ours["burst_per_s"] >= 4 * costs["broadcast"]["burst_per_s"]


def test_five_thousand_clients() -> None:
    cost = row("skillwire ws, 5000", fan_out("ours", "ws", 5000))
    print(
        f"{'':24}{cost['kib']:.1f} KiB a connection; from publish to the last of 5000 receives "
        f"{cost['last_ms']:.1f} ms, at most {cost['last_ms_max']:.1f} ms"
    )
    assert cost["kib"] <= 20


@pytest.mark.parametrize(("connections", "in_flight", "times"), [(1, 16, 1.5), (16, 1, 1.0)])
def test_round_trips_beside_fastapi(connections: int, in_flight: int, times: float, tmp_path: Path) -> None:
    """Budget N4, which is of one connection: a plain command, a coroutine function, and a read of the running
    service. With a call a connection the kernel's receive and send for each are most of what both sides pay."""
    write_skill(tmp_path / "skills", "hello-world", body="Step by step. " * 20)
    with ExitStack() as stack:
        service = stack.enter_context(running(tmp_path / "skills", tmp_path / "data"))
        wait_for_skills(service, 1)
        skill = tmp_path / "skill.json"
        skill.write_bytes(msgspec.json.encode(get(service, "/skills/main/hello-world")))
        own = stack.enter_context(rpc.serving("skillwire"))
        peer = stack.enter_context(rpc.serving("fastapi", str(skill)))
        lines = {
            "plain": rpc.Line(*own, "echo", connections),
            "async": rpc.Line(*own, "echo_later", connections),
            "fastapi": rpc.Line(*peer, "echo", connections),
            "get_skill": rpc.Line(service.process.pid, service.port, "get_skill", connections),
            "fastapi get_skill": rpc.Line(*peer, "get_skill", connections),
        }
        for line in lines.values():
            stack.callback(line.close)
        while idle_share(service.process.pid, 1.0) > 0.05:  # what a start leaves for later
            pass
        costs = rpc.take_turns(lines, rounds=ROUNDS, calls=CALLS, in_flight=in_flight)
    for name, each in costs.items():
        beside = rpc.times_cheaper(each, costs["fastapi get_skill" if "get_skill" in name else "fastapi"])
        cpu_us = statistics.median(cost.cpu_us for cost in each)
        print(
            f"{f'{name}, {connections} x {in_flight} calls':32}{cpu_us:7.1f} us CPU"
            f"{1e6 / statistics.median(cost.clock_us for cost in each):9.0f} calls/s; x fastapi "
            f"{beside.cpu_us:5.2f} by CPU,{beside.clock_us:5.2f} by the clock"
        )
        if "fastapi" not in name:
            assert beside.cpu_us >= times


def test_clients_that_stop_reading_cost_the_others_nothing() -> None:
    """Budget N5."""
    cost = told(sys.executable, "-m", "tests.bench.push.slow")
    late_s = cost["publisher_s"] - slow.EVENTS / slow.PER_S
    print(
        f"{slow.CLIENTS} clients, half of them stalled, {slow.EVENTS} events of 4 KiB: publisher {late_s:.2f} s late, "
        f"its longest publish {cost['worst_publish_ms']:.1f} ms; +{cost['mb']:.1f} MiB; the reading half got "
        f"{cost['quick_got']:.0f}, the stalled half {cost['stalled_got']:.0f} after it resumed, "
        f"{cost['stalled_exact']:.0f} of {slow.CLIENTS // 2} exact"
    )
    assert late_s <= 0.5
    assert cost["quick_got"] == cost["stalled_got"] == 200_000
    assert cost["stalled_exact"] == 50
    assert cost["mb"] <= 50
