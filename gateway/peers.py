"""How replicas know each other when one hands a request on to another.

A request that is handed on does not carry its client's key: addresses are used again, and whoever
listens at one now must not learn it. It carries a *claim* instead, sealed with a secret that only
the deployment's database has: for which replica and session it is, until when, and who is asking.
The receiver proves itself in its answer with the same secret. Nothing in either header is of use
to anybody else: replicas' ids are never used again.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time

import msgspec

from gateway.principal import Principal

SECRET = "peers"
SCHEME = "replica"
PROOF_HEADER = "x-skillwire-proof"
# More than two machines' clocks differ, less than anybody needs.
CLAIM_S = 60


class Claim(msgspec.Struct, frozen=True):
    """`until` is seconds since 1970; `nonce` is what the receiver's proof is made of."""

    to: str
    session: str
    principal: Principal
    until: int
    nonce: str


class Peers:
    """Makes and judges claims and proofs for the replica `me`."""

    def __init__(self, me: str, secret: bytes) -> None:
        self.me = me
        self._secret = secret

    def claim(self, to: str, session: str, principal: Principal) -> Claim:
        return Claim(to, session, principal, int(time.time_ns() // 1_000_000_000) + CLAIM_S, secrets.token_hex(16))

    def sealed(self, claim: Claim) -> str:
        """For an `Authorization` header."""
        content = base64.urlsafe_b64encode(msgspec.json.encode(claim)).decode()
        return f"{SCHEME} {content}.{self._seal('claim', content)}"

    def read(self, authorization: str) -> Claim | None:
        """A claim that a replica of this deployment made for this one, and that has not run out."""
        scheme, _, sealed = authorization.partition(" ")
        content, _, seal = sealed.partition(".")
        if scheme.lower() != SCHEME or not hmac.compare_digest(self._seal("claim", content).encode(), seal.encode()):
            return None
        try:
            claim = msgspec.json.decode(base64.urlsafe_b64decode(content), type=Claim)
        except (binascii.Error, msgspec.DecodeError):
            return None
        return claim if claim.to == self.me and claim.until > time.time_ns() // 1_000_000_000 else None

    def proof(self, claim: Claim) -> str:
        return self._seal(f"proof of {claim.to}", claim.nonce)

    def is_proved(self, claim: Claim, proof: str) -> bool:
        return hmac.compare_digest(self.proof(claim).encode(), proof.encode())

    def _seal(self, what: str, content: str) -> str:
        text = f"{what}\n{content}".encode("utf-8", "surrogateescape")
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()
