"""Addresses of remote files: recognition, and forms without credentials for messages and the store.

An address is ``scheme://…``, or a chain such as ``zip://photo.jpg::s3://bucket/photos.zip``: the
part on the right is the container of the part on the left.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.request import url2pathname

from .._digest import digest

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|[a-z]+::.*://")
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_USER = re.compile(r"(?<=://)[^/?#]*@")
# These have neither users nor queries: their names of files may contain @ and question marks.
_PLAIN = ("zip", "tar", "memory", "file", "local")
_WITHOUT_QUERY = (*_PLAIN, "s3", "s3a", "gs", "gcs")
# Parameters that change with each signature, by the parameter that holds it: of Amazon and Google,
# and of Azure.
_SIGNED = {
    "signature": {"awsaccesskeyid", "googleaccessid", "signature", "expires", "key-pair-id"},
    "sig": {"sig", "sv", "ss", "srt", "sp", "se", "st", "spr", "sr", "sip"}
    | {"skoid", "sktid", "skt", "ske", "sks", "skv"},
}
# Options that name a server, not an identity.
_PLACES = ("endpoint_url", "host", "port", "account_name", "base_url")


class Address(NamedTuple):
    """The address of a remote file.

    Parameters
    ----------
    url : str
        The address, with any credentials that the user wrote into it.
    options : mapping, default=None
        Storage options of this address alone.
    """

    url: str
    options: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, entry: Any) -> Self | None:
        """Return the address that an entry of X is; None if it is something else.

        Parameters
        ----------
        entry : object
            A text, or a path of universal-pathlib.
        """
        if isinstance(entry, str):
            return cls(entry) if is_address(entry) else None
        kind = type(entry)
        if not (hasattr(kind, "storage_options") and hasattr(kind, "protocol")):
            return None
        url = str(entry)
        return cls(url, dict(entry.storage_options)) if is_address(url) else None

    @property
    def links(self) -> list[str]:
        """The parts of the chain, the file first."""
        return self.url.split("::")

    @property
    def scheme(self) -> str:
        """Scheme of the file."""
        return scheme_of(self.links[0])

    def __str__(self) -> str:
        return "::".join(_without_credentials(link) for link in self.links)

    def name(self, options: Mapping[str, Any]) -> str:
        """Return a name for the store: a digest of the place, without credentials and signatures.

        Parameters
        ----------
        options : mapping
            All storage options that apply.
        """
        places = [str(place) for place in _places(options)]
        return "remote:" + digest(*(_unsigned(link) for link in self.links), None, *places)


def is_address(text: str) -> bool:
    """Whether a text is the address of a file, not a local path."""
    return _ADDRESS.match(text) is not None


def is_local(address: Address) -> bool:
    """Whether an address is a local file, ``file://``."""
    return address.url[:7].lower() == "file://"


def scheme_of(link: str) -> str:
    """Return the scheme of one part of a chain, in lower case; ``file`` for a local path."""
    scheme, separator, _ = link.partition("://")
    if separator:
        return scheme.lower()
    return link if link.isalpha() and link.islower() else "file"


def local_path(text: str) -> str:
    """Return the path of a ``file://`` address; any other text as it is."""
    return url2pathname(urlsplit(text).path) if text[:7].lower() == "file://" else text


def foreign_host(url: str) -> str:
    """Return the host that a ``file://`` address names, and that is not this one; else nothing."""
    host = urlsplit(url).netloc if url[:7].lower() == "file://" else ""
    return "" if host.lower() == "localhost" else host


def without_credentials(text: str) -> str:
    """Return a text in which no address has a user, a password or a query."""
    return _IN_TEXT.sub(lambda found: str(Address(found.group())), text)


def _without_credentials(link: str) -> str:
    link = _without_user(link)
    if scheme_of(link) in _WITHOUT_QUERY:
        return link
    end = min((i for i in (link.find("?"), link.find("#")) if i >= 0), default=len(link))
    return link[:end] + ("?..." if link[end:] else "")


def _without_user(link: str) -> str:
    return link if scheme_of(link) in _PLAIN else _USER.sub("", link)


def _unsigned(link: str) -> str:
    """Return a link without credentials and without what changes with each signature."""
    link = _without_user(link)
    if scheme_of(link) == "file":
        return os.path.abspath(local_path(link))  # noqa: PTH100 (a link stays one)
    path, mark, query = link.partition("?")
    if not mark or scheme_of(link) in _WITHOUT_QUERY:
        return link
    pairs = [(key.lower(), key, value) for key, value in parse_qsl(query, keep_blank_values=True)]
    signing = set().union(*(_SIGNED.get(low, set()) for low, _, _ in pairs))
    kept = [
        (key, value)
        for low, key, value in pairs
        if low not in signing and not low.startswith(("x-amz-", "x-goog-"))
    ]
    return f"{path}?{urlencode(kept)}"


def _places(options: Mapping[str, Any]) -> list[Any]:
    """Return the options that name a server, also in nested mappings."""
    found = []
    for key in sorted(options, key=str):
        value = options[key]
        if isinstance(value, Mapping):
            found += _places(value)
        elif key in _PLACES:
            found.append(value)
        elif key == "fo" and isinstance(value, str):
            found.append(_unsigned(value))
    return found
