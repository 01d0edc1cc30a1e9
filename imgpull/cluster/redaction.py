"""Text without secrets: what is written into logs and records passes through here.

Hides how secrets look: those that are known, in each spelling, and what looks like one whoever's it
is. A line at a time, fast enough for every line that ClusterLoader2 says.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator

REDACTED = "REDACTED"

_SHORTEST = 8  # what is shorter would blacken words
# The field's usual spellings: headers, kubeconfigs, docker's config.json, signed addresses (Azure's
# sig=, S3's X-Amz-Signature=), JSON web tokens, private keys.
_PATTERNS = re.compile(
    r"(?P<head>\b(?:Bearer|Basic)\s+"
    r"|(?:\b|u0026|_)(?:sig|X-Amz-Signature|X-Amz-Security-Token|(?:refresh_|access_|id_)?token"
    r"|password|client_secret|CLIENT_SECRET|PASSWORD|TOKEN)="
    r"|\"(?:auth|identitytoken|registrytoken|access_token|refresh_token|id_token)\\?\"\s*:\s*\\?\""
    r"|\b(?:client-key-data|client-certificate-data|clientKeyData|clientCertificateData|id-token"
    r"|refresh-token|access-token|accessToken|clientSecret"
    r"|dockerconfigjson|token|password)\\?\"?\s*:\s*(?:\\?[\"'])?)"
    r"(?P<secret>[^\s\"'\\&,}]{8,})"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?P<address>\b[a-z][a-z0-9+.-]*://[^\s/@:]*:)(?P<password>[^\s/]+)(?=@)",
    re.DOTALL,
)
# What a line must have for any of these to be in it: the search for it costs a tenth.
_SIGNS = re.compile(
    r"earer|asic|sig|ignature|oken|OKEN|auth|data|Data|assword|ASSWORD|ecret|ECRET|configjson"
    r"|eyJ|PRIVATE KEY|@"
)


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that replaces these secrets, and whatever looks like one, in a line of text.

    A secret of several lines is found in each of them.
    """
    spelt = {each for secret in secrets for each in _spellings(secret)}
    known = sorted(spelt, key=len, reverse=True)
    exact = re.compile("|".join(map(re.escape, known))) if known else None

    def redact(text: str) -> str:
        if exact is not None:
            text = exact.sub(REDACTED, text)
        if _SIGNS.search(text):
            text = _PATTERNS.sub(_without, text)
        return text

    return redact


def _without(found: re.Match[str]) -> str:
    return f"{found['head'] or found['address'] or ''}{REDACTED}"


def _spellings(secret: str) -> Iterator[str]:
    """A secret as it may be written: decoded if it is base64, escaped as JSON does, by lines."""
    texts = {secret, *_decoded(secret)}
    for text in texts:
        lines = text.splitlines() if "\n" in text else [text]
        for line in lines:
            if len(line.strip()) >= _SHORTEST and not line.startswith("-----"):
                yield line.strip()
        if len(text) >= _SHORTEST:
            yield base64.b64encode(text.encode()).decode()


def _decoded(secret: str) -> Iterator[str]:
    try:
        text = base64.b64decode(secret, validate=True).decode("ascii")
    except (ValueError, binascii.Error):
        return
    if text.isprintable() or "-----BEGIN" in text:
        yield text
