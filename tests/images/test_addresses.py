"""Addresses: what is one, and what of it may be shown and stored."""

import pytest

from sklearn_featx.images._addresses import Address, is_address, local_path, without_credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a.jpg", True),
        ("https://host/a.jpg", True),
        ("zip://a.jpg::/tmp/b.zip", True),
        ("simplecache::s3://bucket/a.jpg", True),
        ("photos/a.jpg", False),
        ("C:\\photos\\a.jpg", False),
        ("C:/photos/a.jpg", False),
        ("a::b.jpg", False),
        ("data:image/png;base64,iVBORw0KGgo=", False),
    ],
)
def test_what_is_an_address(text, expected):
    assert is_address(text) is expected
    assert (Address.of(text) is not None) is expected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@host/a.jpg?X-Amz-Signature=abc#x", "https://host/a.jpg?..."),
        ("https://host/a.jpg#part", "https://host/a.jpg?..."),
        ("ftp://user@host/a.jpg", "ftp://host/a.jpg"),
        ("s3://key:secret@bucket/a?b.jpg", "s3://bucket/a?b.jpg"),
        (
            "zip://a@b?c.jpg::https://u:p@host/x.zip?sig=1",
            "zip://a@b?c.jpg::https://host/x.zip?...",
        ),
        ("memory://a/b.png", "memory://a/b.png"),
    ],
)
def test_no_credentials_are_shown(url, shown):
    assert str(Address(url)) == shown
    assert without_credentials(f"failed: '{url}' now") == f"failed: '{shown}' now"


class TestName:
    def test_a_new_signature_is_the_same_file(self):
        urls = [
            "https://host/a.jpg?id=1&X-Amz-Signature=abc&X-Amz-Date=1",
            "https://user:pass@host/a.jpg?id=1&X-Amz-Signature=def&X-Amz-Date=2",
            "https://host/a.jpg?Signature=abc&Expires=1&id=1",
            "https://host/a.jpg?sig=abc&se=1&id=1",
        ]
        assert len({Address(url).name({}) for url in urls}) == 1

    def test_another_place_is_another_file(self):
        addresses = [
            ("https://host/a.jpg", {}),
            ("https://host/b.jpg", {}),
            ("https://host/a.jpg?id=1", {}),
            ("https://host/a.jpg?se=1", {}),
            ("https://other/a.jpg", {}),
            ("s3://bucket/a.jpg", {}),
            ("s3://bucket/a.jpg", {"s3": {"endpoint_url": "http://here"}}),
            ("s3://bucket/a.jpg", {"s3": {"client_kwargs": {"endpoint_url": "http://there"}}}),
            ("zip://a.jpg::x.zip", {}),
            ("zip://a.jpg::y.zip", {}),
            ("zip://a.jpg", {"zip": {"fo": "x.zip"}}),
        ]
        names = {Address(url).name(options) for url, options in addresses}
        assert len(names) == len(addresses)

    def test_credentials_do_not_count(self):
        address = Address("s3://bucket/a.jpg")
        assert address.name({"s3": {"key": "a", "secret": "b"}}) == address.name({})
        assert address.name({}).startswith("remote:b2-1:")


def test_file_addresses_are_local_paths():
    assert local_path("file:///tmp/a%20b.jpg") == "/tmp/a b.jpg"
    assert local_path("/tmp/a%20b.jpg") == "/tmp/a%20b.jpg"
