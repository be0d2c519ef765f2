"""What a replica believes of a request that another one handed on."""

import base64

import msgspec

from gateway.peers import CLAIM_S, Claim, Peers
from gateway.principal import ALL_SCOPES, LOCAL, Principal
from notifier.events import Viewer

SECRET = b"s" * 32
ANN = Principal("ann", ALL_SCOPES, Viewer(owners=frozenset(("team",))))


def test_a_claim_says_who_asks_to_the_replica_it_is_for_and_to_no_other() -> None:
    one, other = Peers("one", SECRET), Peers("other", SECRET)
    claim = one.claim("other", "other-1", ANN)
    assert other.read(one.sealed(claim)) == claim
    assert other.read(one.sealed(one.claim("other", "s", LOCAL))).principal == LOCAL  # type: ignore[union-attr]
    assert one.read(one.sealed(claim)) is None
    assert Peers("other", b"t" * 32).read(one.sealed(claim)) is None


def test_a_claim_that_was_changed_or_has_run_out_is_none() -> None:
    one, other = Peers("one", SECRET), Peers("other", SECRET)
    claim = one.claim("other", "other-1", ANN)
    sealed = one.sealed(claim)
    more = msgspec.structs.replace(claim, principal=LOCAL)
    forged = f"Replica {base64.urlsafe_b64encode(msgspec.json.encode(more)).decode()}.{sealed.partition('.')[2]}"
    assert other.read(forged) is None
    assert other.read(sealed.replace("replica", "Bearer")) is None
    assert other.read(one.sealed(msgspec.structs.replace(claim, until=claim.until - CLAIM_S))) is None
    for text in ("", "replica", "replica .", "replica é.é", "Bearer x", f"{sealed}0", sealed[:-1]):
        assert other.read(text) is None


def test_a_proof_is_of_one_claim_and_cannot_be_made_of_what_is_sent() -> None:
    one, other = Peers("one", SECRET), Peers("other", SECRET)
    claim = one.claim("other", "other-1", ANN)
    assert one.is_proved(claim, other.proof(claim))
    assert not one.is_proved(one.claim("other", "other-1", ANN), other.proof(claim))
    assert not one.is_proved(claim, "")
    assert not one.is_proved(claim, one.sealed(claim).rpartition(".")[2])
    assert isinstance(claim, Claim)
