"""`mpc-engine query`: an analyst's questions, from the first look to the result."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpc_engine.cli import presentation
from mpc_engine.cli.outlook import look_ahead
from mpc_engine.cli.plan import show_plan
from mpc_engine.cli.requests import Watch, cost_words, show_status, show_statuses
from mpc_engine.cli.tables import say, show
from mpc_engine.cli.terminal import err, out, show_points
from mpc_engine.client import Client, Cost, connect
from mpc_engine.client.plans import budgets
from mpc_engine.client.request import Request, failure_of
from mpc_engine.errors import DocumentError
from mpc_engine.party.messages import Status
from mpc_engine.release.files import check_free, check_writable, write_files

if TYPE_CHECKING:
    from mpc_engine.client.released import Released

commands = typer.Typer(no_args_is_help=True, help="Ask: validate, cost, preview, submit, and fetch results.")

_Query = Annotated[Path, typer.Argument(metavar="QUERY", help="The query document.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="The request's id, as `submit` printed it.")]
_Profile = Annotated[
    Path,
    typer.Option(
        "--profile",
        envvar="MPC_ENGINE_PROFILE",
        help="The analyst's profile, or a scenario to be simulated.",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_USUAL = Path("profile.toml")


@contextmanager
def _client(profile: Path, project: str | None = None) -> Iterator[Client]:
    with connect(profile, project=project) as client:
        yield client


@commands.command()
def validate(query: _Query, profile: _Profile = _USUAL, as_json: _Json = False) -> None:
    """Check a query against the codebook; nothing is sent."""
    with _client(profile) as client:
        question = client.ask(query).validate()
        fields = {"question": question.query.question(), "cells": question.plan.cells}
    if as_json:
        _print({"valid": True, **fields, "digest": question.query.digest()})
        return
    say(f"{query} fits the codebook. It asks {fields['question']}: {fields['cells']:,} cells.")


@commands.command()
def cost(
    query: _Query,
    profile: _Profile = _USUAL,
    project: Annotated[str | None, typer.Option(help="Another project than the profile's.")] = None,
    cases: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="Cases to expect in all, for expected errors.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show the plan, what is left of each budget, and whether the parties would answer. It costs nothing."""
    with _client(profile, project) as client:
        question = client.ask(query)
        found = question.cost()
        ahead = look_ahead(question.query, client.codebook, found.outline.plan, cases, None)
    if as_json:
        _print(found.as_fields() | ahead.as_fields())
        return
    show_plan(question.query, found.outline.plan, ahead)
    out.print()
    _show_budgets(found)


def _show_budgets(found: Cost) -> None:
    rows = [
        (party, *("–" if left is None else left.words for _, left in budgets(each)))
        for party, each in found.remaining.items()
    ]
    if rows:
        heads = ("data set", "project", "analyst")
        show("What is left of the budgets", ("party", *heads), rows, left=("party", *heads))
    for words in (found.raised, found.words):
        if words:
            say(words)
    for party, words in found.verdicts.items():
        say(f"{party}: {words}")


@commands.command()
def preview(
    query: _Query,
    profile: _Profile = _USUAL,
    rows: Annotated[int, typer.Option(help="Number of made-up records.")] = 1_000,
    seed: Annotated[int | None, typer.Option(help="Repeat the records of this seed.")] = None,
    records_per_patient: Annotated[int, typer.Option(help="Most records of one patient.")] = 1,
    directory: Annotated[Path | None, typer.Option("--out", help="Folder for the preview's files.")] = None,
    as_json: _Json = False,
) -> None:
    """Show the result on made-up records, without noise and suppressed by k; nothing is sent."""
    if directory is not None:
        check_writable(directory)
    presentation.quiet()
    with _client(profile) as client, err.status("making records up"):
        made = client.ask(query).preview(rows, seed, records_per_patient)
    files = {} if directory is None else {f"dummy-{name}": each for name, each in made.files().items()}
    if directory is not None:
        write_files(directory, files)
    if as_json:
        typer.echo(made.to_json(), nl=False)
        return
    presentation.show(made)
    if directory is not None:
        say(f"Written to {directory}: {', '.join(files)}")


@commands.command()
def submit(
    query: _Query,
    profile: _Profile = _USUAL,
    key: Annotated[
        str | None,
        typer.Option(help="Idempotency key, at most 64 characters: once used, it finds the same request."),
    ] = None,
    project: Annotated[str | None, typer.Option(help="Another project than the profile's.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer and show it.")] = False,
    directory: Annotated[
        Path | None, typer.Option("--out", help="With --wait: folder for the result's files.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Hand a question in. Doing it again with the same key does nothing."""
    if directory is not None and not wait:
        raise DocumentError("--out belongs to --wait, or to `mpc-engine query result`")
    if directory is not None:
        check_writable(directory)
    with _client(profile, project) as client:
        if client.desk.simulated and not wait:
            raise DocumentError(f"{profile}: a simulation ends with the command; submit with --wait")
        question = client.ask(query).validate()
        if directory is not None:
            # Before anything is spent. A simulation's answer is new each time, a party's may be the same.
            check_free(directory, None if client.desk.simulated else {"query": question.as_fields()})
        if key is None:
            key = secrets.token_hex(16)
            # Before anything is sent, so that the request is found again whatever happens.
            err.print(f"key: {key}", markup=False)
        request = question.submit(key)
        if wait:
            err.print(f"request: {request.id}", markup=False)
            last = _await(request, None)
            if last.served_from is not None:
                err.print(f"cost: {cost_words(last)}", markup=False)
            _show_result(request.result(), request, directory, as_json)
            return
        status = request.status()
    if as_json:
        _print({"already_submitted": request.known, "key": key, **_plain(status)})
        return
    say(f"{'Already submitted' if request.known else 'Submitted'}: request {request.id}")
    show_status(status)


@commands.command()
def status(request: _Id, profile: _Profile = _USUAL, as_json: _Json = False) -> None:
    """Show what has become of a request."""
    with _client(profile) as client:
        _tell(client.request(request).status(), as_json)


@commands.command("wait")
def wait_for(
    request: _Id,
    profile: _Profile = _USUAL,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most.")] = None,
    as_json: _Json = False,
) -> None:
    """Wait until a request is answered or refused. The exit status tells which, and why."""
    with _client(profile) as client:
        last = _await(client.request(request), timeout, as_json)
    if not as_json:
        say(f"RELEASED: `mpc-engine query result {last.id}` fetches it. Cost: {cost_words(last)}.")


@commands.command()
def result(
    request: _Id,
    profile: _Profile = _USUAL,
    directory: Annotated[
        Path | None, typer.Option("--out", help="Folder for release, receipt, tables and picture.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Fetch a result: release, receipt and what is made of them."""
    if directory is not None:
        check_writable(directory)
    with _client(profile) as client:
        asked = client.request(request)
        _show_result(asked.result(), asked, directory, as_json)


@commands.command("list")
def list_requests(profile: _Profile = _USUAL, as_json: _Json = False) -> None:
    """List this analyst's requests, newest first."""
    with _client(profile) as client:
        found = client.requests()
    if as_json:
        _print([_plain(each) for each in found])
        return
    show_statuses(found)


@commands.command()
def withdraw(request: _Id, profile: _Profile = _USUAL, as_json: _Json = False) -> None:
    """Take a request back that is not answered yet."""
    with _client(profile) as client:
        _tell(client.request(request).withdraw(), as_json)


def _await(request: Request, timeout_s: float | None, as_json: bool = False) -> Status:
    """Wait and show progress, and return the last status; raise what a request was refused with."""
    with Watch() as watch:
        last = request.wait(timeout_s, watch.see)
    if as_json:
        _print(_plain(last))
    if last.state != "RELEASED":
        raise failure_of(last)
    return last


def _show_result(found: Released, request: Request, directory: Path | None, as_json: bool) -> None:
    presentation.quiet()
    checked = found.receipt.verify()
    files: dict[str, str | bytes] = {}
    if directory is not None:
        try:
            check_free(directory, found.release)
        except DocumentError as error:
            fetch = f"`mpc-engine query result {request.id} --out DIR` fetches this one"
            raise DocumentError(f"{error}; {fetch}") from None
        files["release.json"] = json.dumps(found.release, indent=1, ensure_ascii=False) + "\n"
        if found.receipt:
            files["receipt.json"] = found.receipt.text()
        files |= found.files()
        write_files(directory, files)
    if as_json:
        verified = {"ok": checked.ok, "words": list(checked.words)}
        _print({"release": found.release, "receipt": found.receipt.fields, "verified": verified})
        return
    size = sum(len(tally["values"]) for groups in found.release["groups"] for tally in groups["tallies"])
    if directory is None and size > presentation.MOST_WITHOUT_FILES:
        raise DocumentError(f"{size:,} cells are too many for a terminal; give --out DIR, or --json")
    presentation.show(found)
    out.print()
    say("The receipt", style="bold")
    show_points(checked.words)
    if directory is not None:
        say(f"Written to {directory}: {', '.join(files)}")


def _tell(found: Status, as_json: bool) -> None:
    if as_json:
        _print(_plain(found))
        return
    show_status(found)


def _plain(found: Status) -> dict[str, Any]:
    fields: dict[str, Any] = found.model_dump(mode="json")
    return fields | {"cost": found.cost.as_fields()}


def _print(fields: Any) -> None:
    typer.echo(json.dumps(fields, indent=1, ensure_ascii=False, allow_nan=False))
