"""`imgpull image build | delete`: an image of a stated shape into a registry, and out of it.

Hides the command line and the progress line; the image itself is `imgpull.images`'s.
"""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgpull import units
from imgpull.cli.asking import Yes, confirm
from imgpull.errors import ConfigError

if TYPE_CHECKING:
    from imgpull.images import layout, pushing
    from imgpull.images.building import Built, Progress
    from imgpull.images.shape import Shape

_COMPRESSIONS = ("gzip", "zstd", "none")
_SAID_EVERY_S = 0.2


def register(app: typer.Typer) -> None:
    """Have these commands under `imgpull image`."""
    app.command()(build)
    app.command()(delete)


def build(
    reference: Annotated[
        str | None, typer.Argument(help="Where to push: registry/repository:tag")
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="The layer table of conf/image/LIKE.yaml.")
    ] = None,
    salt: Annotated[str, typer.Option(help="Another salt, another content.")] = "0",
    size: Annotated[str | None, typer.Option(help="Compressed, all layers: 2GB.")] = None,
    layers: Annotated[int, typer.Option(help="With --size: so many equal layers.")] = 1,
    ratio: Annotated[
        float | None, typer.Option(help="With --size: unpacked over compressed; default 2.4.")
    ] = None,
    files: Annotated[
        int | None, typer.Option(help="Of all layers; default: one per 256 KiB unpacked.")
    ] = None,
    compression: Annotated[
        str | None, typer.Option(help="gzip, zstd or none; default: the table's, else gzip.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="An OCI layout instead: a directory, or FILE.tar.")
    ] = None,
    conf: Annotated[
        str | None, typer.Option(help="Write conf/image/CONF.yaml too, to measure it: image=CONF.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
) -> None:
    """Make an image of a stated shape, of content that no other has, and push it as it is made."""
    from imgpull.config.compose import CONF
    from imgpull.images.building import build as built_at

    if compression not in (None, *_COMPRESSIONS):
        raise ConfigError(
            f"--compression {compression} is unknown", hint=f"one of {', '.join(_COMPRESSIONS)}"
        )
    if conf and output:
        raise ConfigError(
            "--conf is for an image that nodes can pull", hint="push it: leave out --output"
        )
    shape = _shape(like, size, layers, ratio, files, compression)
    path = CONF / "image" / f"{conf}.yaml" if conf else None
    if path and path.exists() and not force:
        raise ConfigError(f"{path} exists", hint="choose another --conf, or replace it: --force")
    with _target(reference, output, salt) as target, _progress() as progress:
        built = built_at(shape, salt, target, progress)
    typer.echo(_story(built))
    if path:
        path.write_text(_conf_text(built, shape, conf or "", salt), encoding="utf-8")
        typer.echo(f"written:  {path}")
        typer.echo(f"use it:   python run.py image={conf}")
    else:
        typer.echo(f"{built.reference}@{built.digest}" if not output else built.reference)


def delete(
    reference: Annotated[str, typer.Argument(help="registry/repository:tag, or …@sha256:…")],
    yes: Yes = False,
) -> None:
    """Delete an image made by imgpull; its layers go with the registry's garbage collection."""
    from imgpull.images import pushing
    from imgpull.images.building import SALT_LABEL

    found, labels = pushing.labels(reference)
    if SALT_LABEL not in labels:
        raise ConfigError(
            f"{reference} was not made by imgpull: it has no label {SALT_LABEL}",
            hint="what others made, their registry deletes: az acr repository delete, for example",
        )
    confirm(f"delete {found} (salt {labels[SALT_LABEL]}) with all its tags?", yes)
    digest = pushing.delete(found)
    typer.echo(f"{digest} deleted; its layers are freed when the registry collects garbage")


def _shape(
    like: str | None, size: str | None, layers: int, ratio: float | None, files: int | None,
    compression: str | None,
) -> "Shape":  # fmt: skip
    from imgpull.config.compose import composed_job
    from imgpull.images import shape

    if (like is None) == (size is None):
        raise ConfigError(
            "give --like NAME or --size SIZE, one of them",
            hint="imgpull image build --like pytorch_large --salt 1 REGISTRY/REPOSITORY:TAG",
        )
    if like is not None:
        image = composed_job([f"image={like}"]).image
        return shape.like(image, files=files, compression=compression)
    try:
        size_bytes = units.parse_size(size or "")
    except ValueError as error:
        raise ConfigError(f"--size: {error}", hint="for example --size 2GB") from error
    return shape.even(
        size_bytes, layers, files=files, ratio=shape.RATIO if ratio is None else ratio,
        compression=compression or "gzip",
    )  # fmt: skip


def _target(
    reference: str | None, output: Path | None, salt: str
) -> "contextlib.AbstractContextManager[pushing.Destination | layout.Directory | layout.TarFile]":
    from imgpull.images import layout, pushing

    if (reference is None) == (output is None):
        raise ConfigError(
            "give registry/repository:tag to push to, or --output, one of them",
            hint="imgpull image build --size 10MB localhost:5000/made:1",
        )
    if output is not None:
        return layout.layout(output, salt)
    return pushing.Destination(reference or "")


@contextlib.contextmanager
def _progress() -> Iterator["Progress"]:
    """A line that is written over, where somebody looks."""
    shown = sys.stderr.isatty()
    begun = said = time.monotonic()

    def progress(done: int, of: int) -> None:
        nonlocal said
        now = time.monotonic()
        if not shown or now - said < _SAID_EVERY_S:
            return
        said = now
        line = (
            f"{units.format_size(done)} of {units.format_size(of)}, "
            f"{done / 1e6 / (now - begun):.0f} MB/s"
        )
        sys.stderr.write(f"\r{line:<60}")
        sys.stderr.flush()

    yield progress
    if shown:
        sys.stderr.write(f"\r{'':<60}\r")


def _story(built: "Built") -> str:
    rate = built.compressed_bytes / 1e6 / max(built.wall_s, 1e-9)
    return (
        f"{built.digest}  {len(built.layers)} layers, {built.compressed_bytes} bytes compressed, "
        f"{built.unpacked_bytes} unpacked, in {built.wall_s:.1f} s ({rate:.0f} MB/s)"
    )


def _conf_text(built: "Built", shape: "Shape", name: str, salt: str) -> str:
    lines = [
        f"# Made by imgpull image build with --salt {salt}: {len(built.layers)} layers, "
        f"{built.compressed_bytes} B compressed, of the manifest.",
        f"name: {name}",
        f"reference: {built.reference}",
        f"digest: {built.digest}",
        f"command: {json.dumps(shape.command)} # its own: its sleeping program",
        "args: []",
        "pull_secret: null",
        "platform: linux/amd64",
        "layers:",
    ]
    lines += [
        f"  - {{compressed_bytes: {layer.compressed_bytes}, "
        f"unpacked_bytes: {layer.unpacked_bytes}, compression: {layer.compression}, "
        f"digest: '{layer.digest}'}}"
        for layer in built.layers
    ]
    return "\n".join(lines) + "\n"
