"""`imgpull doctor | janitor | cluster … | image …`: looking at a cluster or registry, tidying up.

Hides how findings look on a terminal. Everything that knows a cluster is in `imgpull.cluster`.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgpull.cli import aks, images
from imgpull.errors import ConfigError, EngineUnavailable

if TYPE_CHECKING:
    from imgpull.cluster.preflight import Finding

cluster = typer.Typer(
    no_args_is_help=True, help="Look at a real cluster; build and end one on AKS."
)
image = typer.Typer(no_args_is_help=True, help="Look at an image in its registry; make one.")
aks.register(cluster)
images.register(image)

Kubeconfig = Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else ~/.kube/config.")]
Context = Annotated[str | None, typer.Option(help="A context of it; default: its current one.")]


def doctor(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="As for run.py: engine=binary cluster=mine nodes=3 …"),
    ] = None,
    azure: Annotated[
        bool, typer.Option("--azure", help="Whether imgpull cluster up could build the cluster.")
    ] = False,
) -> None:
    """Check that a real engine could run here, without running anything: every failure, its fix."""
    from imgpull import engines
    from imgpull.config.compose import composed_job

    job = composed_job(overrides or [])
    if azure:
        if _print_findings(aks.doctor(job)):
            raise typer.Exit(2)
        return
    if not engines.is_real(job):
        engines.build(job).check()
        typer.echo(f"engine={job.engine.kind} needs no cluster: nothing to check")
        return
    from imgpull.engines.real import RealEngine

    failed = _print_findings(RealEngine(job).findings())
    if failed:
        raise typer.Exit(2)


_MARKS = {"ok": "ok     ", "warning": "WARNING", "failed": "FAILED "}


def _print_findings(findings: "Iterable[Finding]") -> int:
    """Print each as it comes; how many failed."""
    failed = warned = 0
    for found in findings:
        failed += found.state == "failed"
        warned += found.state == "warning"
        typer.echo(f"{_MARKS[found.state]}  {found.check}: {found.message}")
        if found.fix:
            typer.echo(f"         {found.fix}")
    typer.echo(f"{failed} failed, {warned} warnings")
    return failed


def janitor(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List, remove nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also what a sweep that seems to run still holds.")
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    docker: Annotated[
        str, typer.Option(help="The program of engine=docker, whose containers are looked at too.")
    ] = "docker",
    azure: Annotated[
        bool, typer.Option("--azure", help="Clusters of ours in Azure whose expiry is over.")
    ] = False,
    subscription: Annotated[
        str | None,
        typer.Option(help="With --azure; default: az's current one, and those of clusters here."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --azure: do not ask.")] = False,
) -> None:
    """Find and remove what a killed sweep left on a cluster, and only that."""
    if azure:
        aks.janitor(dry_run=dry_run, yes=yes, subscription=subscription)
        return
    from imgpull.cluster import janitor as cleaning
    from imgpull.cluster.kube import Kube

    _tidy_containers(docker, dry_run=dry_run)
    kube = Kube.open(kubeconfig, context)
    try:
        found = cleaning.leftovers(kube, include_live=force)
        for each in found:
            typer.echo(f"{each.kind} {each.name}: {each.why}")
        if not found:
            typer.echo(f"{kube.context}: nothing of ours is left")
        if dry_run or not found:
            return
        still = cleaning.remove(kube, found, typer.echo)
        typer.echo(f"{len(found) - len(still)} removed")
        for each in still:
            typer.echo(f"still there: {each.kind} {each.name}", err=True)
        if still:
            raise typer.Exit(1)
    finally:
        kube.close()


def _tidy_containers(command: str, *, dry_run: bool) -> None:
    """ClusterLoader2's containers on this machine whose imgpull does not run any more."""
    from imgpull.engines.containers import Containers

    if shutil.which(command) is None:
        return
    docker = Containers(command)
    try:
        found = docker.leftovers()
        for each in found:
            typer.echo(f"container {each.name}: {each.state}, and its imgpull is gone")
        still = [] if dry_run else docker.remove_leftovers()
    except EngineUnavailable:
        return  # a docker that does not run holds no container
    for each in still:
        typer.echo(f"still there: container {each.name}", err=True)


@cluster.command()
def describe(
    name: Annotated[str, typer.Option(help="The level of the factor cluster.")] = "mine",
    selector: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE of the measured nodes; default: the largest user pool."),
    ] = None,
    registry: Annotated[str | None, typer.Option(help="Host name of the registry.")] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Print a description of a live cluster: imgpull cluster describe > conf/cluster/mine.yaml"""
    from imgpull.cluster.describe import describe as described
    from imgpull.cluster.kube import Kube

    pairs = [each.partition("=") for each in selector or ()]
    for key, sign, _ in pairs:
        if not sign:
            raise ConfigError(f"--selector {key} is no KEY=VALUE", hint="--selector agentpool=user")
    kube = Kube.open(kubeconfig, context)
    try:
        wanted = {key: value for key, _, value in pairs} or None
        typer.echo(described(kube, name, wanted, registry=registry), nl=False)
    finally:
        kube.close()


@image.command()
def inspect(
    reference: Annotated[str, typer.Argument(help="registry/repository:tag")],
    name: Annotated[
        str | None, typer.Option(help="Of the file and the level; default: the repository's.")
    ] = None,
    platform: Annotated[str, typer.Option(help="Which manifest of an index.")] = "linux/amd64",
    download: Annotated[
        bool, typer.Option("--download", help="Stream the layers to measure unpacked sizes.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
) -> None:
    """Read an image's digest and layers from its registry into conf/image/NAME.yaml."""
    from imgpull.cluster import registry
    from imgpull.config.compose import CONF

    info = registry.inspect(reference, platform, download=download)
    chosen = name or registry.image_name(reference)
    path = CONF / "image" / f"{chosen}.yaml"
    if path.exists() and not force:
        raise ConfigError(f"{path} exists", hint="choose another --name, or replace it: --force")
    path.write_text(registry.image_yaml(info, chosen), encoding="utf-8")
    typer.echo(f"{info.digest}  {len(info.layers)} layers")
    typer.echo(f"written:  {path}")
    typer.echo(f"use it:   python run.py engine=binary image={chosen}")
