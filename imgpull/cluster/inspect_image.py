"""Preflight of the image: is it in its registry, is it the one described, will its pods stay up?

Hides which credential asks the registry: the pull secret's where there is one, as nodes do, else
docker's own. A registry that only the cluster reaches is doubtful, not wrong.
"""

from collections.abc import Generator, Iterator, Sequence

from imgpull import units
from imgpull.cluster import registry, registry_login
from imgpull.cluster.everywhere import some
from imgpull.cluster.findings import Finding, failed, of_error, ok, warning
from imgpull.cluster.fingerprint import Mismatch
from imgpull.cluster.kube import Kube
from imgpull.cluster.nodes import NodeFacts
from imgpull.cluster.registry import ImageInfo
from imgpull.cluster.registry_login import Logins
from imgpull.config.image import Image
from imgpull.errors import ConfigError, EngineFailed, EngineUnavailable

SECRET_NAMESPACE = "default"  # where pull secrets are copied from
_SECRET_TYPES = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")
_PASS_ON = {"tini", "dumb-init", "nvidia_entrypoint.sh", "env", "--"}  # run what follows them
# End at once where nobody types.
_PROMPTS = {
    "ash", "bash", "dash", "sh", "zsh", "python", "python2", "python3", "ipython", "node", "irb",
    "R", "julia", "true", "hello",
}  # fmt: skip
_OF_PROMPTS = {"-i", "-l", "-il", "-li", "--login"}


def pull_secret(kube: Kube, image: Image) -> Generator[Finding, None, Logins | None]:
    """Whether the pull secret is there and is one; returns what it holds."""
    check, name = "pull secret", image.pull_secret
    if name is None:
        return None
    fix = (
        f"kubectl create secret docker-registry {name} -n {SECRET_NAMESPACE} --docker-server=… "
        "--docker-username=… --docker-password=…"
    )
    secret = kube.find(f"/api/v1/namespaces/{SECRET_NAMESPACE}/secrets/{name}")
    if secret is None:
        yield failed(
            check, f"there is no Secret {name} in namespace {SECRET_NAMESPACE}, from where "
            "image.pull_secret is copied into the test's namespace", fix,
        )  # fmt: skip
        return None
    if secret.get("type") not in _SECRET_TYPES:
        yield failed(check, f"Secret {name} is of type {secret.get('type')}, no pull secret", fix)
        return None
    try:
        logins = registry_login.secret_logins(kube, SECRET_NAMESPACE, name)
    except ConfigError as error:
        yield of_error(check, error, fix)
        return None
    yield ok(check, f"{name} is there")
    return logins


def in_registry(
    image: Image, logins: Logins | None
) -> Generator[Finding, None, tuple[ImageInfo | None, list[Mismatch]]]:
    """Whether the registry has the image; returns what it told, and where the description differs.

    Nothing is downloaded.
    """
    check = "image"
    try:
        info = registry.inspect(image.pinned_reference, image.platform, logins)
        tagged = info if image.digest is None else _by_tag(image, logins)
    except ConfigError as error:
        key = "image.platform" if "is not there for" in error.message else "image.reference"
        yield of_error(check, error, f"check {key}", key)
        return None, []
    except (EngineUnavailable, EngineFailed) as error:
        yield warning(
            check, f"it could not be looked at from here, and the nodes may reach it: "
            f"{error.message}", error.hint,
        )  # fmt: skip
        return None, []
    differs = [*_digest_differs(image, tagged), *_layers_differ(image, info)]
    yield ok(
        check, f"{info.digest}, {len(info.layers)} layers, "
        f"{units.format_size(info.compressed_bytes)} compressed",
    )  # fmt: skip
    return info, differs


def _by_tag(image: Image, logins: Logins | None) -> ImageInfo | None:
    """What the tag names now; None when it is gone, which a pull by digest does not mind."""
    try:
        return registry.inspect(image.reference, image.platform, logins)
    except ConfigError:
        return None


def _digest_differs(image: Image, tagged: ImageInfo | None) -> Iterator[Mismatch]:
    if image.digest is None or tagged is None:
        return
    if image.digest not in (tagged.digest, tagged.manifest_digest):
        yield Mismatch("image.digest", image.digest, f"{tagged.digest} under {image.reference}")


def _layers_differ(image: Image, info: ImageInfo) -> Iterator[Mismatch]:
    described = [layer.compressed_bytes for layer in image.layers]
    found = [layer.compressed_bytes for layer in info.layers]
    if described and described != found:
        yield Mismatch("image.layers", _layers(described), _layers(found))


def _layers(sizes: Sequence[int]) -> str:
    return f"{len(sizes)} layers of {sum(sizes)} bytes compressed"


def command(image: Image, info: ImageInfo | None) -> Iterator[Finding]:
    """Whether the container stays up: one that exits never counts as running."""
    check, fix = "command", "image.command=[sleep,infinity]"
    if image.command or image.args:
        return  # the user's choice
    if info is None:
        yield warning(
            check, "the image's own command is not known; one that exits is never Running, and the "
            "test would wait for it until wait_timeout", fix,
        )  # fmt: skip
        return
    told = " ".join(info.command)
    if not info.command:
        yield failed(check, "the image has no command of its own", fix, "image.command")
    elif _prompts(info.command):
        yield failed(
            check, f"the image's own command, '{told}', exits at once without a terminal, and "
            "a container that exits is never Running", fix, "image.command",
        )  # fmt: skip
    else:
        yield ok(check, f"the image's own: '{told}'")


def _prompts(words: Sequence[str]) -> bool:
    """Whether a command is known to end at once."""
    rest = [word.rpartition("/")[2] for word in words]
    while rest and rest[0] in _PASS_ON:
        rest = rest[1:]
    return not rest or (rest[0] in _PROMPTS and all(word in _OF_PROMPTS for word in rest[1:]))


def platform(image: Image, nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    """Whether the nodes can run it."""
    wanted = image.platform.split("/")[1]
    others = {node.name: node.architecture for node in nodes if node.architecture != wanted}
    if others:
        architecture = next(iter(others.values()))
        yield failed(
            "platform", f"image.platform={image.platform}, but {some(others)} run {architecture}",
            f"image.platform=linux/{architecture}", "image.platform",
        )  # fmt: skip
