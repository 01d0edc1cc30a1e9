"""`imgpull cluster up|down|status|resize|credentials|attach-acr`, and `--azure` of others.

Hides how a proposal looks on a terminal, and asks before anything is made or deleted.
"""

import datetime as dt
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgpull import units
from imgpull.cli.asking import Yes, agrees, confirm
from imgpull.errors import ConfigError, ImgpullError

if TYPE_CHECKING:
    from imgpull.config.job import Job
    from imgpull.provisioning.costs import HourlyCost
    from imgpull.provisioning.lifecycle import Proposal, Provisioned
    from imgpull.provisioning.running import Limits
    from imgpull.provisioning.variables import Machines

Limit = Annotated[
    str, typer.Option(help="How long one command of terraform may take; then it is told to stop.")
]
Name = Annotated[str, typer.Argument(help="As imgpull cluster status lists it.")]


def register(cluster: typer.Typer) -> None:
    """Put the commands beside `imgpull cluster describe`."""
    for command in (up, down, status, resize, credentials):
        cluster.command()(command)
    cluster.command("attach-acr")(attach_acr)


def up(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="As for run.py: cluster=aks_d4ds_v5 nodes=10 …")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the cluster; default: the description's.")
    ] = None,
    yes: Yes = False,
    limit: Limit = "2h",
) -> None:
    """Build the described cluster on AKS, or change it into that; shows the cost and asks first."""
    from imgpull.config.compose import composed_job
    from imgpull.provisioning.lifecycle import ensure

    job = composed_job(overrides or [])
    with _ends_politely():
        made = ensure(job, _say, name=name, agree=_asks(yes, job), limits=_limits(limit))
    _tell_next(made, overrides or [])


def resize(
    name: Name,
    nodes: Annotated[int, typer.Option(help="Measured nodes from now on.")],
    yes: Yes = False,
    limit: Limit = "2h",
) -> None:
    """Give a cluster of ours another number of measured nodes."""
    from imgpull.provisioning import lifecycle

    with _ends_politely():
        made = lifecycle.resize(name, nodes, _say, agree=_asks(yes), limits=_limits(limit))
    typer.echo(f"cluster {made.name} has {nodes} measured nodes")


def down(name: Name, yes: Yes = False, limit: Limit = "2h") -> None:
    """Destroy a cluster of ours with all that belongs to it, and see that it is gone."""
    from imgpull.provisioning import lifecycle
    from imgpull.provisioning.place import Place

    values = Place(name).values()
    typer.echo(f"cluster {name}: {_machines_text(values)}")
    typer.echo(f"destroyed with the resource group {values['resource_group_name']}")
    if values["registry_name"]:
        typer.echo(f"and the registry {values['registry_name']} with every image in it")
    confirm("destroy it?", yes)
    with _ends_politely(f"imgpull cluster down {name} --yes"):
        lifecycle.give_back(name, _say, limits=_limits(limit))
    typer.echo(f"cluster {name} is destroyed; nothing of it is left here or in Azure")


def status(
    name: Annotated[str | None, typer.Argument(help="One cluster; default: all.")] = None,
) -> None:
    """Say which clusters were made from here, how they are, what they cost and how they end."""
    from imgpull.provisioning.place import Place, every

    places = [Place(name)] if name else every()
    if not places:
        typer.echo("no cluster was made from here: imgpull cluster up cluster=aks_d4ds_v5")
    for place in places:
        _tell_status(place.name, place.values())


def credentials(name: Name) -> None:
    """Write the kubeconfig of a cluster of ours anew."""
    from imgpull.provisioning.lifecycle import refresh_credentials

    made = refresh_credentials(name, _say)
    typer.echo(f"export KUBECONFIG={made.kubeconfig}")


def attach_acr(
    registry: Annotated[str, typer.Argument(help="A registry's name, or its resource id.")],
    cluster: Annotated[str, typer.Option(help="The AKS cluster whose nodes shall pull.")],
    resource_group: Annotated[str, typer.Option(help="The cluster's.")],
    subscription: Annotated[
        str | None, typer.Option(help="The cluster's; default: az's current one.")
    ] = None,
    registry_subscription: Annotated[
        str | None, typer.Option(help="The registry's; default: the cluster's.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Let an existing cluster pull from a registry; shows the role and asks first."""
    from imgpull.provisioning import attach

    what = attach.propose(
        registry, cluster=cluster, group=resource_group, subscription=subscription,
        registry_subscription=registry_subscription,
    )  # fmt: skip
    typer.echo(f"cluster:   {what.cluster} (identity of its nodes: {what.principal})")
    typer.echo(f"registry:  {what.registry}")
    typer.echo(f"role:      {what.role} on {what.scope}")
    if what.is_there:
        typer.echo("it is there already: nothing to do")
        return
    confirm("give this role?", yes)
    attach.attach(what, _say)
    typer.echo(f"undo:      {what.undo}")


def doctor(job: "Job") -> "Iterator[Any]":
    """The findings of `imgpull doctor --azure`."""
    from imgpull.provisioning import requirements
    from imgpull.provisioning.variables import machines_of

    return requirements.findings(job, machines_of(job))


def janitor(*, dry_run: bool, yes: bool, subscription: str | None = None) -> None:
    """`imgpull janitor --azure`: what of ours is in Azure; what is expired goes when told.

    Without a subscription: az's current one, and those of the clusters made from here.
    """
    from imgpull.provisioning import expired
    from imgpull.provisioning.az import Az
    from imgpull.provisioning.running import Limits

    limits, (price, currency) = Limits(), _prices()
    untold: list[str] = []
    here = expired.made_here(untold.append)
    first = Az(subscription, limits).account()
    others = (
        [] if subscription else sorted({each for _, each in here.values()} - {first.subscription})
    )
    over, still = [], []
    for each in (first.subscription, *others):
        az = Az(each, limits)
        try:
            name = first.name if each == first.subscription else az.account().name
            found = expired.look(az, here, untold.append, price, currency)
        except ImgpullError as error:
            untold.append(f"subscription {each}: {error}")
            continue
        for one in found:
            typer.echo(f"{one.group.name}: {_expiry_text(one.left_s())}; {one.group.owner}, sweep "
                       f"{one.group.sweep}; {one.cost}")  # fmt: skip
        gone = [one for one in found if one.is_expired]
        over += [(az, one) for one in gone]
        typer.echo(f"{name}: {len(found)} of ours, {len(gone)} expired")
    if over and not dry_run:
        confirm(f"delete {', '.join(one.group.name for _, one in over)}?", yes)
        with _ends_politely("imgpull janitor --azure"):
            still = [line for az, one in over for line in expired.remove(az, [one], _say, limits)]
        typer.echo(f"{len(over) - len(still)} removed")
    for line in still:
        typer.echo(f"still there: {line}", err=True)
    for line in untold:
        typer.echo(f"not looked at: {line}", err=True)
    if still or untold:
        raise typer.Exit(1)


def _say(text: str) -> None:
    if text.strip():
        typer.echo(f"  {text}")


def _limits(text: str) -> "Limits":
    from imgpull.provisioning.running import limits_of

    try:
        seconds = units.parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"--limit: {error}", hint="--limit 2h") from error
    if seconds <= 0:
        raise ConfigError(f"--limit {text} is not above zero", hint="--limit 2h")
    return limits_of(seconds)


def _asks(yes: bool, job: "Job | None" = None) -> "Callable[[Proposal], bool]":
    """A function that shows a proposal and asks whether to go on."""

    def agree(proposal: "Proposal") -> bool:
        _show(proposal, job)
        return agrees("go on?", yes)

    return agree


def _show(proposal: "Proposal", job: "Job | None") -> None:
    from imgpull.provisioning.variables import missing_registry

    values = proposal.values
    typer.echo(f"\ncluster {proposal.name}: {'new' if proposal.is_new else 'changed'}")
    for change in proposal.changes:
        typer.echo(f"  {change.action:8} {change.address}")
    typer.echo(f"  region:   {values['location']}, resource group {values['resource_group_name']}")
    typer.echo(f"  machines: {_machines_text(values)}")
    if values["registry_name"]:
        typer.echo(f"  registry: {values['registry_name']}.azurecr.io ({values['registry_sku']})")
    elif values["registry_id"]:
        typer.echo(f"  registry: AcrPull on {values['registry_id']}")
    elif job is not None and missing_registry(job.cluster):
        typer.echo(f"  registry: none; {job.cluster.registry.server} is a placeholder: "
                   "cluster.registry.server=NAME.azurecr.io makes one")  # fmt: skip
    if values["sku_tier"] == "Free" and values["measured_node_count"] >= 10:
        typer.echo("  note:     AKS recommends its Free tier for fewer than 10 nodes: a slow API "
                   "server is measured too; cluster.azure.sku_tier=Standard")  # fmt: skip
    typer.echo(f"  cost:     {_cost(proposal.machines, values['location'])}")
    typer.echo(f"  expiry:   {proposal.expiry}, and nothing ends it by itself then: by cron, "
               "imgpull janitor --azure --yes\n")  # fmt: skip


def _machines_text(values: Mapping[str, Any]) -> str:
    from imgpull.provisioning.variables import machines

    return ", ".join(f"{each.count} {each.vm_size} ({each.what})" for each in machines(values))


def _prices() -> "tuple[Callable[[str, str], float | None], str]":
    from imgpull.sweep.forecasting.prices import read_prices

    told = read_prices()

    def price(region: str, size: str) -> float | None:
        return told.vm_hour.get(f"{region}/{size}", told.vm_hour.get(size))

    return price, told.currency or ""


def _cost(machines: "Sequence[Machines]", region: str) -> "HourlyCost":
    from imgpull.provisioning.costs import hourly

    price, currency = _prices()
    return hourly(machines, region, price, currency)


def _tell_next(made: "Provisioned", overrides: Sequence[str]) -> None:
    engine = [] if any(each.startswith("engine=") for each in overrides) else ["engine=docker"]
    told = shlex.join([*engine, f"engine.kubeconfig={made.kubeconfig}", *overrides])
    typer.echo(f"\nready:      {made.name}, context {made.context}")
    typer.echo(f"kubeconfig: {made.kubeconfig}")
    typer.echo(f"next:       imgpull doctor {told}")
    typer.echo(f"then:       python run.py {told}")
    registry = json.loads(made.variables.read_text("utf-8"))["registry_name"]
    if registry:
        typer.echo(f"push to it: az acr login --name {registry}")
    typer.echo(f"at the end: imgpull cluster down {made.name}")


def _tell_status(name: str, values: Mapping[str, Any]) -> None:
    from imgpull.provisioning.az import Az
    from imgpull.provisioning.variables import EXPIRY, SWEEP, machines

    until = dt.datetime.fromisoformat(values["tags"][EXPIRY])
    left_s = (until - dt.datetime.now(dt.UTC)).total_seconds()
    typer.echo(f"{name}: {_machines_text(values)} in {values['location']}")
    if (sweep := values["tags"][SWEEP]) != "none":
        typer.echo(f"  made for: the sweep {sweep}")
    try:
        az = Az(values["subscription_id"])
        group = az.group(values["resource_group_name"])
        pools = az.pools(group.name) if group else []
        now = ", ".join(f"{count} {size} ({pool})" for pool, size, count in pools)
        typer.echo(f"  in Azure: {now or ('no cluster' if group else 'nothing')}")
    except ImgpullError as error:
        typer.echo(f"  in Azure: not known: {error.message}")
    typer.echo(f"  cost:     {_cost(machines(values), values['location'])}")
    typer.echo(f"  expiry:   {_expiry_text(left_s)}")
    typer.echo(f"  end it:   imgpull cluster down {name}")


def _expiry_text(left_s: float | None) -> str:
    if left_s is None:
        return "no expiry that could be read: left alone"
    text = units.format_duration(abs(left_s) // 60 * 60)
    return f"expires in {text}" if left_s > 0 else f"expired {text} ago"


@contextmanager
def _ends_politely(again: str = "") -> Iterator[None]:
    """Exit status of what was declined or interrupted.

    `again` is the command that goes on; without one, what exists was said already.
    """
    from imgpull.provisioning.lifecycle import Declined

    try:
        yield
    except Declined:
        typer.echo("nothing was done")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        if again:
            typer.echo(f"interrupted: something may be left; go on: {again}")
        raise typer.Exit(130) from None
