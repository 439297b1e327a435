"""Why a value may be missing: every reason that the ledger knows, what it means, what to do."""

from __future__ import annotations

from typing import Final

from attrs import frozen


@frozen
class Reason:
    """One reason. The name is kept: scripts count by it."""

    name: str
    meaning: str
    action: str


_NOTHING: Final = "Nothing to do."
_CABLE: Final = "Check termination (120 ohm at both ends), shield and length of the cable."

EXCEPTIONS: Final = {
    1: ("the function that its profile reads with", "Check that the profile fits the model."),
    2: ("the address of this register", "Check that the profile fits the model."),
    3: ("a request of this length", "Check that the profile fits the model."),
    4: ("it, since it failed inside", "Switch the meter off and on, else replace it."),
    5: ("an answer at once, since it takes longer", "Poll less often."),
    6: ("an answer, since it is busy", "Poll less often; see whether another master asks it."),
    8: ("it, since its memory is damaged", "Switch the meter off and on, else replace it."),
    10: ("a way to the meter", "Check the gateway's own table of its meters."),
    11: ("an answer of the meter behind it", "Check that meter's power, wires and unit."),
}
"""Code of an exception to what the meter, or a gateway before it, refuses with it."""

_ALL: Final = (
    # Nobody answered.
    Reason(
        "timeout",
        "The meter did not answer in time, nor when it was asked again within the window.",
        "Check its power, the wires (A and B may be swapped), unit, baud rate and parity.",
    ),
    Reason(
        "offline",
        "The meter was silent before, and is asked less often until it answers again.",
        "As for timeout.",
    ),
    Reason(
        "link_down",
        "The serial port or the connection could not be used.",
        "Check the adapter's plug and the path, or the network and the address.",
    ),
    Reason(
        "bus_busy",
        "The line was busy with other meters, or lent to a scan, for as long as the window.",
        "Poll less often, raise the baud rate, or split the line; `check` shows its load.",
    ),
    # What came was not the answer.
    Reason("crc", "The answer was damaged on the line.", _CABLE),
    Reason("unit", "Another unit answered.", "See whether two meters or masters share the line."),
    Reason(
        "function",
        "An answer of another function came.",
        "See whether another master asks on this line.",
    ),
    Reason("length", "An answer of another length came.", _CABLE),
    Reason(
        "frame",
        "What came was not Modbus TCP.",
        "Check `framing`: a serial server may speak rtu over TCP.",
    ),
    *(
        Reason(f"exception_{code}", f"The meter, or a gateway before it, refused {what}.", action)
        for code, (what, action) in EXCEPTIONS.items()
    ),
    # Another meter.
    Reason(
        "other_meter",
        "A meter with another serial number answered; its values are not taken.",
        "If it is the right one: `meter-gateway accept METER`, or its number in the configuration.",
    ),
    Reason(
        "unidentified",
        "The meter did not tell its serial number, so it is not known whether it is the right one.",
        "If it never does, take `serial_number` out of the configuration.",
    ),
    # It has no value, or none that can be believed.
    Reason(
        "not_available",
        "The meter says that it has no value (NaN, or its own mark for that).",
        "Send another quantity, or check how the meter is wired and set.",
    ),
    Reason(
        "undecodable",
        "The words are no number of the register's type.",
        "Hold the display against it: `meter-gateway verify METER QUANTITY VALUE`.",
    ),
    Reason(
        "held",
        "The counter showed a value that cannot follow from the one before: zero, less, or more"
        " than `max_power` allows. It is kept with its reason, and not believed until the next"
        " reads tell.",
        "If it jumps again and again at a steady rate, `max_power` is too small: nothing is lost"
        " once it is raised. Else, if counter.accepted does not follow, look at the meter; then"
        " `meter-gateway accept METER` takes it for right.",
    ),
    # It answered, and there is nothing to reckon from, or not enough.
    Reason(
        "no_baseline",
        "The first interval of a counter, or of one that had just begun to show zero, as meters do"
        " that start up: nothing to reckon from.",
        _NOTHING,
    ),
    Reason(
        "replaced",
        "The meter was replaced or reset: what the old one showed is not reckoned from.",
        _NOTHING,
    ),
    Reason(
        "gap",
        "What the counter moved over a gap was left out, as `gap: skip` says.",
        "`gap: return` or `spread` would send it.",
    ),
    Reason(
        "too_few_polls",
        "Less than 80 % of the polls of the interval gave a value.",
        "See why the others failed: `meter-gateway status` shows each meter's errors.",
    ),
    # Time, and the gateway itself.
    Reason(
        "clock",
        "The clock was set over this time, or no sample that got its time later lies near enough.",
        "Check that the machine reaches a time server (timedatectl).",
    ),
    Reason(
        "repeated",
        "The interval had a value already when this one came, as after a clock that was ahead and"
        " was set back. The first stays; the second is counted as dropped.",
        "Hold these intervals (buffer.repeated in the log) against the meter; see to the clock.",
    ),
    Reason(
        "no_time",
        "The machine lost its power before it ever had the time: what the meter showed then is kept"
        " and parked, since nobody knows of which interval it is.",
        "Nothing to do; a battery for the clock prevents it.",
    ),
    Reason(
        "stopped",
        "The gateway did not run, or its machine had no power.",
        "The log, or `meter-gateway events`, tells when it stopped and started.",
    ),
    Reason(
        "config",
        "The configuration was changed: the meter was not in it, or it was just being taken over.",
        _NOTHING,
    ),
    Reason(
        "buffer_full",
        "The buffer could not be written for longer than the memory holds.",
        "Free room on the disk; check the card with `dmesg`.",
    ),
    Reason(
        "unsound",
        "The value could not be stored: it is no number, or longer than any meter's.",
        "Report it with the log.",
    ),
)

REASONS: Final = {reason.name: reason for reason in _ALL}


def explained(name: str) -> Reason:
    """What a reason means; one of another device's own exceptions is told by its number."""
    if name in REASONS:
        return REASONS[name]
    return Reason(name, f"The meter gave the reason {name}.", "See the meter's document.")
