"""What kubelet reports of a pull that fails: containerd's texts by cause and version.

Hides the wording, from containerd's source (client pull, core/remotes/docker, core/unpack; the text
of a missing image was recorded too) and kubelet's, which strips gRPC's prefix from code Unknown.
"""

from imgpull.exporters import version_tuple

QPS_EXCEEDED = "pull QPS exceeded"  # kubernetes 1.36 pkg/kubelet/images/helpers.go


def resolving(kind: str, image: str, containerd_version: str) -> str:
    """The error of a pull that never learned its layers: throttled, auth or not_found."""
    host, name, tag = _parts(image)
    url = f"https://{host}/v2/{name}/manifests/{tag}"
    why = {
        "throttled": f"unexpected status from HEAD request to {url}: 429 Too Many Requests",
        "auth": (
            "failed to authorize: failed to fetch oauth token: unexpected status from GET request "
            f"to https://{host}/oauth2/token: 401 Unauthorized"
        ),
        "not_found": f"{image}: not found",
    }[kind]
    old = version_tuple(containerd_version) < (2, 1)
    step = f'failed to resolve reference "{image}"' if old else "failed to resolve image"
    return _pull("NotFound" if kind == "not_found" else "", image, f"{step}: {why}")


def fetching(kind: str, image: str, digest: str, containerd_version: str) -> str:
    """The error of a pull whose layer does not come: throttled, network or timeout."""
    if kind == "timeout":
        return _pull("Canceled", image, "context canceled")
    host, name, _ = _parts(image)
    url = f"https://{host}/v2/{name}/blobs/{digest}"
    old = version_tuple(containerd_version) < (2, 1)
    status = f"code {url}" if old else f"from GET request to {url}"
    why = {
        "throttled": f"httpReadSeeker: failed open: unexpected status {status}: "
        "429 Too Many Requests",
        "network": "read tcp: read: connection reset by peer",
    }[kind]
    return _pull("", image, f"failed to copy: {why}")


def unpacking(kind: str, image: str, digest: str) -> str:
    """The error of a pull whose layer cannot be written: disk_full."""
    why = {"disk_full": "write: no space left on device"}[kind]
    return _pull("", image, f"failed to extract layer {digest}: {why}")


def _parts(image: str) -> tuple[str, str, str]:
    """Registry host, repository, and tag or digest."""
    host, _, rest = image.partition("/")
    name, _, digest = rest.partition("@")
    name, _, tag = name.partition(":")
    return host, name, digest or tag or "latest"


def _pull(code: str, image: str, why: str) -> str:
    prefix = f"rpc error: code = {code} desc = " if code else ""
    return f'{prefix}failed to pull and unpack image "{image}": {why}'
