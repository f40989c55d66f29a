"""Shamir's sharing against an independent solver: a linear system modulo p, by elimination."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.shamir import PRIME, combine, forgers, split, weights


def solve(points: dict[int, int]) -> list[int]:
    """Coefficients of the polynomial through the points, constant first, by Gauss and Jordan."""
    rows = [[pow(x, k, PRIME) for k in range(len(points))] + [y] for x, y in points.items()]
    for column in range(len(rows)):
        pivot = next(i for i in range(column, len(rows)) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = pow(rows[column][column], PRIME - 2, PRIME)
        rows[column] = [value * inverse % PRIME for value in rows[column]]
        for i, row in enumerate(rows):
            if i != column:
                rows[i] = [(a - row[column] * b) % PRIME for a, b in zip(row, rows[column], strict=True)]
    return [row[-1] for row in rows]


def is_prime(n: int) -> bool:
    """Miller and Rabin, forty bases."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 42):
        x = pow(base, odd, n)
        if x in (1, n - 1):
            continue
        if not any((x := x * x % n) == n - 1 for _ in range(twos - 1)):
            return False
    return True


def test_the_modulus_is_the_smallest_prime_above_all_secrets():
    assert PRIME == 2**256 + 297 and is_prime(PRIME)
    assert not any(is_prime(2**256 + i) for i in range(1, 297, 2))


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.integers(0, 8), st.randoms())
def test_any_t_shares_give_the_secret_and_the_polynomial_has_degree_t_minus_1(secret, threshold, more, random):
    shares = dict(enumerate(split(secret, threshold, threshold + more), start=1))
    chosen = random.sample(sorted(shares), threshold)
    assert combine({x: shares[x] for x in chosen}) == secret
    values = {x: int.from_bytes(shares[x], "little") for x in shares}
    coefficients = solve({x: values[x] for x in chosen})
    assert coefficients[0] == int.from_bytes(secret, "little")
    assert all(sum(c * x**k for k, c in enumerate(coefficients)) % PRIME == y for x, y in values.items())


def test_secrets_at_the_ends_of_the_range():
    for secret in (bytes(32), b"\xff" * 32, b"\x01" + bytes(31), bytes(31) + b"\x80"):
        shares = split(secret, 3, 5)
        for chosen in itertools.combinations(range(5), 3):
            assert combine({x + 1: shares[x] for x in chosen}) == secret


def test_fewer_shares_fit_every_secret():
    """With t - 1 shares there is for any other secret exactly one last share that gives it."""
    shares = dict(enumerate(split(b"\x07" * 32, 3, 3), start=1))
    for guess in (b"\x00" * 32, b"\x09" * 32):
        first, second, last = weights((1, 2, 3))
        known = first * int.from_bytes(shares[1], "little") + second * int.from_bytes(shares[2], "little")
        needed = (int.from_bytes(guess, "little") - known) * pow(last, -1, PRIME) % PRIME
        assert combine({1: shares[1], 2: shares[2], 3: needed.to_bytes(33, "little")}) == guess


def test_shares_of_one_secret_are_fresh_each_time():
    assert split(b"\x07" * 32, 2, 3) != split(b"\x07" * 32, 2, 3)


def test_who_forged_a_share_is_found():
    shares = dict(enumerate(split(b"\x07" * 32, 3, 7), start=1))
    shares[2] = (int.from_bytes(shares[2], "little") + 1).to_bytes(33, "little")
    shares[5] = bytes(33)
    assert forgers(shares, [1, 3, 7]) == {2, 5}


def test_what_is_no_share_is_refused():
    good = dict(enumerate(split(b"\x07" * 32, 2, 3), start=1))
    for bad in (b"", bytes(32), PRIME.to_bytes(33, "little"), b"\xff" * 33):
        with pytest.raises(Refused, match="2\\^256 \\+ 297"):
            combine({1: good[1], 2: bad})
    with pytest.raises(Refused, match="no 32-byte secret"):
        combine({1: (PRIME - 1).to_bytes(33, "little")})
    with pytest.raises(ValueError, match="4-of-3"):
        split(b"\x07" * 32, 4, 3)
