"""cache=salted: an image of the job's shape that no node can have, for one attempt of one trial.

Hides how it is named and salted, and that it is deleted afterwards, whatever the trial came to.
What a killed attempt left goes when the next attempt of the same trial begins.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from imgpull import units
from imgpull.cluster.registry_client import Missing
from imgpull.cluster.registry_login import docker_logins
from imgpull.config.image import Image, Layer
from imgpull.errors import ConfigError, EngineFailed, EngineUnavailable
from imgpull.images import pushing, shape
from imgpull.images.building import Built, build

_SAID_EVERY_S = 5.0
_TAG_LENGTH = 128  # distribution/reference

Say = Callable[[str], None]


@dataclass(frozen=True)
class Salt:
    """Which attempt of which trial of which sweep an image is for."""

    sweep: str
    trial: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.sweep}/{self.trial}/{self.attempt}"

    @property
    def tag(self) -> str:
        """The tag of its image."""
        return f"{self.stem}{self.attempt}"

    @property
    def stem(self) -> str:
        """What the tags of all attempts of this trial begin with."""
        stem = re.sub(r"[^A-Za-z0-9_.-]", "-", f"imgpull-{self.sweep}-{self.trial}-a")
        return stem[: _TAG_LENGTH - 6]


def check(image: Image, repository: str) -> str:
    """What would be pushed there for each trial, after a look whether it may be.

    ConfigError for a shape that cannot be made, EngineUnavailable when the repository takes none.
    """
    wanted = shape.like(image)
    with pushing.Destination(f"{repository}:imgpull-check") as target:
        target.check()
    return (
        f"{units.format_size(wanted.compressed_bytes)} in {len(wanted.layers)} layers will be "
        f"pushed to {repository} for each trial"
    )


def login_ends(repository: str) -> datetime | None:
    """When whoever pushes there is known no more; None when nothing tells an end."""
    login = docker_logins()(repository)
    return login.expires_at if login else None


@contextmanager
def salted(
    image: Image, repository: str, salt: Salt, say: Say, left: Say = lambda what: None
) -> Iterator[Image]:
    """The image, built and in its repository, for as long as this lasts.

    `left` is told what could not be deleted. EngineUnavailable when it cannot be pushed.
    """
    reference = f"{repository}:{salt.tag}"
    for tag in _earlier(repository, salt):
        say(f"deleting {repository}:{tag}, which an earlier attempt left")
        _delete(f"{repository}:{tag}", left)
    try:
        built = _built(image, reference, salt, say)
        yield replace(
            image,
            reference=reference,
            digest=built.digest,
            layers=tuple(
                Layer(x.compressed_bytes, x.unpacked_bytes, x.compression, x.digest)
                for x in built.layers
            ),
        )
    finally:
        say(f"deleting {reference}")
        _delete(reference, left)


def _built(image: Image, reference: str, salt: Salt, say: Say) -> Built:
    said = time.monotonic()

    def progress(done: int, of: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _SAID_EVERY_S:
            said = time.monotonic()
            say(f"pushing the image: {units.format_size(done)} of {units.format_size(of)}")

    say(f"building the image at {reference}")
    # A sweep's directory that is used again names its images alike, and nodes may hold those.
    unique = f"{salt}/{secrets.token_hex(4)}"
    with pushing.Destination(reference) as target:
        return build(shape.like(image), unique, target, progress)


def _earlier(repository: str, salt: Salt) -> list[str]:
    """Tags of other attempts of this trial; none where tags cannot be listed."""
    try:
        with pushing.Destination(f"{repository}:{salt.tag}") as target:
            found = target.tags()
    except (Missing, EngineUnavailable, EngineFailed):
        return []
    return [tag for tag in found if re.fullmatch(rf"{re.escape(salt.stem)}[0-9]+", tag)]


def _delete(reference: str, left: Say) -> None:
    try:
        pushing.delete(reference)
    except ConfigError:
        return  # it never came to be
    except (EngineUnavailable, EngineFailed) as error:
        left(f"{reference} was not deleted: {error.message}")
