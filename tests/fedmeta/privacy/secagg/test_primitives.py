"""The primitives against their standards' vectors, and our use of them against an independent library."""

import numpy as np
import pytest
from Crypto.Cipher import AES as OTHER_AES
from Crypto.Cipher import ChaCha20_Poly1305 as OTHER_CHACHA
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.keys import (
    Exchange,
    check_public,
    commitment,
    derive,
    new_private_key,
    pairwise_mask_key,
    public_key,
    sealing_key,
    self_mask_key,
)
from fedmeta.privacy.secagg.masks import CHUNK, add_masks, mask
from fedmeta.privacy.secagg.sealing import seal, unseal

H = bytes.fromhex


def test_x25519_is_rfc_7748():
    """Section 5.2's first vector, and the agreement of section 6.1."""
    scalar = H("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = H("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert Exchange(scalar).shared(point) == H("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    alice = H("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = H("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert public_key(alice) == H("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    agreed = H("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert Exchange(alice).shared(public_key(bob)) == Exchange(bob).shared(public_key(alice)) == agreed


def test_a_public_key_of_small_order_is_refused():
    for point in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(Refused, match="small order"):
            check_public(point)
    check_public(public_key(new_private_key()))


def test_hkdf_is_rfc_5869_test_case_3():
    expected = H("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d")  # its first 32 of 42 bytes
    assert derive(b"\x0b" * 22, b"", b"") == expected


def test_keys_differ_by_context_purpose_and_node_and_not_by_side():
    secret = b"\x05" * 32
    keys = [
        *(make(secret, binding, 1, 2) for make in (pairwise_mask_key, sealing_key) for binding in (b"a", b"b")),
        *(make(secret, binding, 1) for make in (self_mask_key, commitment) for binding in (b"a", b"b")),
        pairwise_mask_key(secret, b"a", 1, 3),
        self_mask_key(secret, b"a", 2),
    ]
    assert len(set(keys)) == len(keys)
    assert pairwise_mask_key(secret, b"a", 2, 1) == pairwise_mask_key(secret, b"a", 1, 2)


def test_chacha20_poly1305_is_rfc_8439_and_seals_as_another_library_does():
    text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    text += b"sunscreen would be it."
    sealed = ChaCha20Poly1305(bytes(range(0x80, 0xA0))).encrypt(
        H("070000004041424344454647"), text, H("50515253c0c1c2c3c4c5c6c7")
    )
    assert sealed == H(
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b29"
        "05d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b"
        "61161ae10b594f09e26a7e902ecbd0600691"
    )
    key = bytes(range(32))
    for sender, recipient, nonce in ((3, 9, bytes(12)), (9, 3, bytes(11) + b"\x01")):
        other = OTHER_CHACHA.new(key=key, nonce=nonce)
        other.update(sender.to_bytes(8, "little") + recipient.to_bytes(8, "little"))
        body, tag = other.encrypt_and_digest(text)
        assert seal(key, sender, recipient, text) == body + tag
        assert unseal(key, sender, recipient, body + tag) == text


def test_aes_256_ctr_is_sp_800_38a():
    """F.5.5, all four blocks."""
    key = H("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    text = H(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    encryptor = Cipher(AES256(key), CTR(H("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"))).encryptor()
    assert encryptor.update(text) == H(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("length", [1, 3, 5, CHUNK // 8, CHUNK // 4 + 3, CHUNK + 1])
def test_a_mask_is_the_encrypted_counter_read_as_little_endian_words(bits, length):
    key = bytes(range(32))
    blocks = -(-length * bits // 128)
    counters = b"".join(i.to_bytes(16, "big") for i in range(blocks))
    expected = np.frombuffer(OTHER_AES.new(key, OTHER_AES.MODE_ECB).encrypt(counters), dtype=f"<u{bits // 8}")[:length]
    np.testing.assert_array_equal(mask(key, length, bits), expected)


def test_masks_add_and_subtract_modulo_the_word():
    keys = [bytes([i]) * 32 for i in range(4)]
    vector = np.arange(100_000, dtype=np.uint32)
    found = vector.copy()
    add_masks(found, keys[:3], keys[3:])
    expected = vector.astype(object) + sum(mask(key, vector.size, 32).astype(object) for key in keys[:3])
    expected = (expected - mask(keys[3], vector.size, 32).astype(object)) % 2**32
    np.testing.assert_array_equal(found, expected.astype(np.uint32))
    add_masks(found, keys[3:], keys[:3])
    np.testing.assert_array_equal(found, vector)
    with pytest.raises(ValueError, match="int64"):
        add_masks(np.zeros(3, dtype=np.int64), keys)
