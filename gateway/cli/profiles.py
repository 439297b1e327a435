"""`meter-gateway profiles`: the meter models that are known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import get_args

import click

from gateway.cli.output import config_option, escaped, print_json, render
from gateway.cli.trying import told, try_out
from gateway.config import Library, UnknownProfile, find_path, own_profiles
from gateway.config.library import file_name
from gateway.errors import ConfigurationError, GatewayError
from gateway.metering.inquiry import SERVER_ID
from gateway.metering.profile import Computed, DeviceProfile, Identity, Kind
from gateway.metering.register import Register


@click.group()
def profiles() -> None:
    """The meter models that are known, and checking one's own."""


@profiles.command("list")
@click.argument("words", nargs=-1)
@click.option("--maker", help="Only those of this maker.")
@click.option("--kind", type=click.Choice(get_args(Kind)), help="Only meters of this kind.")
@click.option(
    "--identity", metavar="VALUE", help="Only those that are known by this code, number or text."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@config_option
def list_(
    words: tuple[str, ...],
    maker: str | None,
    kind: str | None,
    identity: str | None,
    as_json: bool,
    config: str | None,
) -> None:
    """List every profile: its name, and the maker, model and kind of meter.

    With WORDS those that have all of them in name, maker, model or what else stands on the label,
    or as their kind, or as the code that the meter tells of itself.
    """
    library = known_library(config)
    for path, right in library.misnamed():
        _warn(f"{path} is not read: no profile can have this name; rename it to {right}")
    found = [
        profile
        for profile in library.all()
        if _has(profile, words)
        and (maker is None or maker.casefold() in profile.maker.casefold())
        and kind in (None, profile.kind)
        and (identity is None or _known_by(profile, identity))
    ]
    rows = [{"name": p.name, "maker": p.maker, "model": p.model, "kind": p.kind} for p in found]
    if as_json:
        print_json(rows)
        return
    if not rows:
        hint = "fewer words, or `meter-gateway profiles list` for all; docs/how-to/add-a-meter.md"
        raise GatewayError("no profile fits", hint=hint)
    rows.insert(0, {"name": "NAME", "maker": "MAKER", "model": "MODEL", "kind": "KIND"})
    widths = [max(len(row[key]) for row in rows) for key in rows[0]]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row.values(), widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@profiles.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@config_option
def show(name: str, as_json: bool, config: str | None) -> None:
    """Show the registers of the profile NAME, with what it extends resolved."""
    library = known_library(config)
    try:
        profile = library.get(name)
    except UnknownProfile as unknown:
        hint = unknown.suggestion or "`meter-gateway profiles list` shows them"
        raise GatewayError(str(unknown), hint=hint) from None
    if as_json:
        print_json(view(profile))
    else:
        click.echo("\n".join(_page(profile)))


@profiles.command()
@click.argument("file", type=click.Path(path_type=Path))
@config_option
def check(file: Path, config: str | None) -> None:
    """Check the profile in FILE, explain every mistake, and try it on a simulated meter."""
    library = known_library(config)
    again = f"`meter-gateway profiles check {quote(str(file))}`"
    hint = f"mend the lines shown and run {again} again"
    if not file.is_file():
        hint = "name the file of a profile, such as profiles/my-meter.yaml"
    if not file.is_file() and str(file) in library.names():
        hint = f"{again.replace(' check ', ' show ')}: it is the name of a profile that is known"
    try:
        checked = library.check(file)
    except ConfigurationError as error:
        raise ConfigurationError(error.mistakes, what="the profile", hint=hint) from None
    if checked.warnings:
        click.echo(render(checked.warnings), err=True)
    if file.name != (right := file_name(file)):
        _warn(f"no profile can have the name {file.name}; rename it to {right}")
    profile = checked.profile
    tried = told(profile, try_out(profile, library.sound()))
    count = len(profile.quantities())
    quantities = "1 quantity" if count == 1 else f"{count} quantities"
    click.echo(f"{file} is sound: {profile.maker} {profile.model}, {quantities}")
    click.echo("\n".join(tried))


def _warn(message: str) -> None:
    click.echo(click.style("warning: ", fg="yellow") + escaped(message), err=True)


def _has(profile: DeviceProfile, words: Sequence[str]) -> bool:
    said = " ".join((profile.name, profile.maker, profile.model, *profile.aliases)).casefold()
    return all(
        word.casefold() in said or word.casefold() == profile.kind or _known_by(profile, word)
        for word in words
    )


def _known_by(profile: DeviceProfile, shown: str) -> bool:
    expected = (value for one in profile.identity for value in one.expected)
    return shown.casefold() in {value.casefold() for value in expected}


def known_library(config: str | None) -> Library:
    """The shipped profiles, and one's own where a configuration names a folder of them."""
    path = find_path(config)
    if config is None and "METER_GATEWAY_CONFIG" not in os.environ and not path.is_file():
        return Library()
    return Library(own_profiles(path))


def view(profile: DeviceProfile) -> dict[str, object]:
    """A profile as `profiles show --json` prints it."""
    found: dict[str, object] = {
        "name": profile.name,
        "maker": profile.maker,
        "model": profile.model,
        "kind": profile.kind,
        "serial": {
            "baudrate": profile.serial.baudrate,
            "parity": profile.serial.parity,
            "stopbits": profile.serial.stopbits,
            "unit": profile.serial.unit,
        },
        "tcp": {"port": profile.tcp.port, "unit": profile.tcp.unit},
        "registers": [_register(register) for register in profile.registers],
        "computed": [_computed(total) for total in profile.computed],
        "identity": [_identity(identity) for identity in profile.identity],
        "sources": dict(profile.sources),
        "aliases": list(profile.aliases),
        "left_out": dict(profile.left_out),
        "setup": list(profile.setup),
        "notes": list(profile.notes),
    }
    if profile.sunspec is not None:
        found["sunspec"] = {
            "models": list(profile.sunspec.models),
            "header": profile.sunspec.header,
            "bases": list(profile.sunspec.bases),
        }
    return found


def _place(register: Register) -> dict[str, object]:
    return {
        "function": register.function,
        "address": register.address,
        "type": register.encoding.type,
        "words": register.count,
        "word_order": register.encoding.word_order,
        "byte_order": register.encoding.byte_order,
    }


def _register(register: Register) -> dict[str, object]:
    found: dict[str, object] = {"quantity": register.name, **_place(register)}
    found["scale"] = f"{register.scale:f}"
    found["unit"] = register.unit
    if register.not_available:
        found["not_available"] = sorted(register.not_available)
    if register.scale_register is not None:
        found["scale_register"] = _place(register.scale_register)
    if register.unit_register is not None:
        factors = {str(code): f"{factor:f}" for code, factor in register.unit_factors}
        found["unit_register"] = {**_place(register.unit_register), "factors": factors}
    if register.modulus is not None:
        found["modulus"] = f"{register.modulus:f}"
    found["sources"] = list(register.sources)
    found["confidence"] = register.confidence
    if register.conflict:
        found["conflict"] = register.conflict
    if register.note:
        found["note"] = register.note
    return found


def _computed(total: Computed) -> dict[str, object]:
    def terms(registers: tuple[Register, ...]) -> list[dict[str, object]]:
        named = [_register(register) for register in registers]
        return [{"name": each.pop("quantity"), **each} for each in named]

    return {
        "quantity": total.quantity,
        "unit": total.unit,
        "plus": terms(total.plus),
        "minus": terms(total.minus),
    }


def _identity(identity: Identity) -> dict[str, object]:
    expected = list(identity.expected)
    told_by = identity.told_by
    if isinstance(told_by, Register):
        return {"what": identity.what, **_place(told_by), "expected": expected}
    where = {"function": told_by.function, "object": told_by.object}
    return {"what": identity.what, **where, "expected": expected}


def _page(profile: DeviceProfile) -> list[str]:
    lines = [f"{profile.name}: {profile.maker} {profile.model} ({profile.kind})"]
    serial = profile.serial
    if serial.baudrate is not None:
        parts = [f"{serial.baudrate} baud", f"parity {serial.parity}", f"stop {serial.stopbits}"]
        lines.append(f"  leaves the factory with {', '.join(parts)}, unit {serial.unit}")
    if profile.tcp.port is not None:
        unit = "" if profile.tcp.unit is None else f", unit {profile.tcp.unit}"
        lines.append(f"  over Ethernet: port {profile.tcp.port}{unit}")
    if profile.aliases:
        lines.append(f"  also: {', '.join(profile.aliases)}")
    if profile.sunspec is not None:
        lines.append(f"  SunSpec: addresses for base {profile.sunspec.bases[0]}")
    width = max(len(name) for name in ("quantity", *profile.quantities()))
    head = "function  address  type    words   scale  unit  sources"
    lines.append(f"\n  {'quantity':<{width}}  {head}")
    for register in profile.registers:
        encoding = register.encoding
        order = encoding.word_order if register.count > 1 else ""
        lines.append(
            f"  {register.name:<{width}}  {register.function:>8}  {register.address:>7}"
            f"  {encoding.type:<6}  {order:<6}  {f'{register.scale:f}':>5}  {register.unit:<4}"
            f"  {register.confidence}"
        )
    for total in profile.computed:
        plus = " + ".join(term.name for term in total.plus)
        minus = "".join(f" - {term.name}" for term in total.minus)
        lines.append(f"  {total.quantity:<{width}}  = {plus}{minus} {total.unit}")
    for identity in profile.identity:
        told_by = identity.told_by
        means = f" (this model: {', '.join(identity.expected)})" if identity.expected else ""
        if isinstance(told_by, Register):
            place, kind = told_by.address, told_by.encoding.type
        else:
            place, kind = told_by.object, "object" if told_by.function != SERVER_ID else "text"
        lines.append(
            f"  {identity.what:<{width}}  {told_by.function:>8}  {place:>7}  {kind:<6}{means}"
        )
    lines += ["", "Sources:", *(f"  {name}: {what}" for name, what in profile.sources)]
    conflicts = dict.fromkeys(r.conflict for r in profile.registers if r.conflict)
    lines += [f"Conflict: {conflict}" for conflict in conflicts]
    lines += [f"Left out: {what}: {why}" for what, why in profile.left_out]
    lines += [f"Setting up: {step}" for step in profile.setup]
    lines += [f"Note: {note}" for note in profile.notes]
    return lines
