"""What kubelet reports of a pull that fails: containerd's texts by cause and version.

Hides the wording. Of a missing image the texts were recorded (containerd 1.7, 2.1); the others are
put together from containerd's source (pull, core/remotes/docker, core/unpack) and Go's own errors.
"""

from imgpull.exporters import version_tuple

QPS_EXCEEDED = "pull QPS exceeded"  # kubernetes 1.36 pkg/kubelet/images/helpers.go


def resolving(kind: str, image: str, containerd_version: str) -> str:
    """The error of a pull that never learned its layers: throttled, auth or not_found."""
    host, _, rest = image.partition("/")
    name, _, tag = rest.partition("@")[0].partition(":")
    url = f"https://{host}/v2/{name}/manifests/{tag or 'latest'}"
    why = {
        "throttled": f"unexpected status from HEAD request to {url}: 429 Too Many Requests",
        "auth": f"unexpected status from HEAD request to {url}: 401 Unauthorized",
        "not_found": f"{image}: not found",
    }[kind]
    code = "NotFound" if kind == "not_found" else "Unknown"
    old = version_tuple(containerd_version) < (2, 1)
    step = f'failed to resolve reference "{image}"' if old else "failed to resolve image"
    return _pull(code, image, f"{step}: {why}")


def fetching(kind: str, image: str, digest: str) -> str:
    """The error of a pull whose layer does not come: throttled, network or timeout."""
    host, _, rest = image.partition("/")
    url = f"https://{host}/v2/{rest.partition('@')[0].partition(':')[0]}/blobs/{digest}"
    code, why = {
        "throttled": (
            "Unknown",
            f"httpReadSeeker: failed open: unexpected status from GET request to {url}: "
            "429 Too Many Requests",
        ),
        "network": ("Unknown", "httpReadSeeker: read: connection reset by peer"),
        "timeout": ("Canceled", "context canceled"),
    }[kind]
    return _pull(code, image, f"failed to copy: {why}")


def unpacking(kind: str, image: str, digest: str) -> str:
    """The error of a pull whose layer cannot be written: disk_full."""
    why = {"disk_full": "write: no space left on device"}[kind]
    return _pull("Unknown", image, f"failed to extract layer {digest}: {why}")


def _pull(code: str, image: str, why: str) -> str:
    return f'rpc error: code = {code} desc = failed to pull and unpack image "{image}": {why}'
