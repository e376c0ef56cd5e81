"""Certificates for tests: those that `controlplane certs` makes, and such as it does
not make."""

import base64
import hashlib
import pathlib
import secrets

# NIST P-256: y² = x³ - 3x + b over the integers modulo P, and a point of order N.
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def expire(cert: pathlib.Path, ca_key: pathlib.Path) -> None:
    """Makes a certificate one that ended in 2001, signed by its CA."""
    der = _read(cert)
    body, _ = _content(der, 0)
    tbs_content, tbs_end = _content(der, body)
    _, algorithm_end = _content(der, tbs_end)
    tbs, algorithm = der[body:tbs_end], der[tbs_end:algorithm_end]
    time = bytes([0x17, 13])  # a UTCTime, of which validity has two
    before = tbs.index(time)
    after = tbs.index(time, before + 1)
    tbs = tbs[:before] + time + b"000101000000Z" + tbs[before + 15 : after] + time + b"010101000000Z" + tbs[after + 15 :]
    r, s = _sign(hashlib.sha256(tbs).digest(), _private(_read(ca_key)))
    signature = _der(0x03, b"\x00" + _der(0x30, _integer(r) + _integer(s)))
    text = base64.encodebytes(_der(0x30, tbs + algorithm + signature)).decode()
    cert.write_text("-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n" % text)


def _read(path: pathlib.Path) -> bytes:
    """The first PEM block."""
    lines = path.read_text().splitlines()
    return base64.b64decode("".join(lines[1 : next(i for i, l in enumerate(lines) if l.startswith("-----END"))]))


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the DER value begins, and where it ends."""
    length, begin = der[at + 1], at + 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[at + 2 : begin], "big")
    return begin, begin + length


def _der(tag: int, content: bytes) -> bytes:
    n = len(content)
    length = bytes([n]) if n < 128 else bytes([0x80 | (n.bit_length() + 7) // 8]) + n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes([tag]) + length + content


def _integer(n: int) -> bytes:
    return _der(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big"))


def _private(pkcs8: bytes) -> int:
    """The number in a PKCS #8 key: the one octet string of 32 bytes."""
    at = pkcs8.index(bytes([0x04, 0x20]))
    return int.from_bytes(pkcs8[at + 2 : at + 34], "big")


def _sign(digest: bytes, key: int) -> tuple[int, int]:
    """ECDSA."""
    k = secrets.randbelow(N - 1) + 1
    r = _times(k, G)[0] % N
    return r, pow(k, -1, N) * (int.from_bytes(digest, "big") + r * key) % N


def _times(k: int, point: tuple[int, int]) -> tuple[int, int]:
    total = None
    while k:
        if k & 1:
            total = point if total is None else _add(total, point)
        point, k = _add(point, point), k >> 1
    return total


def _add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    slope = (3 * a[0] ** 2 - 3) * pow(2 * a[1], -1, P) if a == b else (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope**2 - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P
