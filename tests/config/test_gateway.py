from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.clock import DAY, HOUR, MINUTE, SECOND
from gateway.config import Loaded, find_path, load
from gateway.config.settings import ClockSettings, LogSettings
from gateway.errors import ConfigurationError, Mistake
from gateway.metering.reading import SeriesKey
from gateway.modbus.settings import SerialLink, TcpLink

PROFILES = Path(__file__).parent / "profiles"

Load = Callable[..., Loaded]
Mistakes = Callable[..., list[Mistake]]


def test_a_whole_configuration_becomes_settings(loaded: Load, whole: str, folder: Path) -> None:
    result = loaded(whole)
    config = result.config
    assert result.warnings == ()
    assert config.timezone == "Europe/Oslo"
    assert [(s.name, s.import_name) for s in config.energinet.senders] == [
        ("basement", "north-gate")
    ]
    assert config.energinet.senders[0].token().reveal() == "abc-123"
    supply, heating = config.meters
    assert (supply.name, supply.bus, supply.unit) == ("main-supply", "riser", 1)
    assert supply.profile.maker == "Acme"
    counter, power = supply.send
    assert counter.key == SeriesKey("north-gate", "7777777777")
    assert (counter.as_, counter.every, counter.sender, counter.gap) == (
        "consumption",
        HOUR,
        "basement",
        "return",
    )
    assert (power.as_, power.every) == ("mean", 15 * MINUTE)
    assert heating.send[0].as_ == "counter"
    assert config.buses[0].link == SerialLink(str(folder / "riser.port"), 19200, "even", 1)
    assert config.buses[1].link == TcpLink("192.168.10.20", 502, "tcp")


def test_every_key_that_is_left_out_has_its_documented_default(loaded: Load, whole: str) -> None:
    config = loaded(whole).config
    energinet = config.energinet
    assert energinet.url == "https://www.energinet.net/apiImport/data"
    assert (energinet.timestamps, energinet.label) == ("local", "start")
    assert (energinet.linger, energinet.request_interval) == (30 * SECOND, 10 * MINUTE)
    assert (energinet.max_payload, energinet.timeout) == (500_000, 60 * SECOND)
    assert (energinet.ca, energinet.proxy) == (None, None)
    bus = config.buses[0]
    assert (bus.poll, bus.timeout, bus.retries) == (MINUTE, SECOND, 2)
    assert (bus.pause, bus.pause_after_open) == (0, 0)
    assert isinstance(bus.link, SerialLink)
    assert (bus.link.framing, bus.link.echo, bus.link.rs485) == ("rtu", False, False)
    tcp = config.buses[1].link
    assert isinstance(tcp, TcpLink)
    assert (tcp.disconnect, tcp.tls) == ("never", None)
    meter = config.meters[0]
    assert (meter.multiplier, meter.serial_number, meter.max_power) == (Decimal(1), None, None)
    assert config.buffer.path == "/var/lib/meter-gateway/readings.db"
    assert (config.buffer.keep, config.buffer.max_size) == (400 * DAY, 1_000_000_000)
    assert config.clock == ClockSettings(assume_synchronised=False)
    assert config.log == LogSettings("auto", "info")


def test_every_key_can_be_set(loaded: Load, folder: Path) -> None:
    for name in ("ca.pem", "own.pem", "own.key"):
        (folder / name).touch()
    secret = folder / "proxy.secret"
    secret.write_text("user:pass word\n")
    secret.chmod(0o600)
    (folder / "profiles").mkdir()
    (folder / "profiles" / "mine.yaml").write_text(
        "maker: M\nmodel: N\nkind: water\nsources: {d: doc}\n"
        "identity: [{what: serial_number, function: 3, address: 9, type: u32, sources: [d]}]\n"
        "registers: [{quantity: volume_total, function: 3, address: 0, type: u32, unit: m³,"
        " sources: [d]}]\n"
    )
    config = loaded(
        """
timezone: Europe/Berlin
energinet:
  url: http://[::1]:8080/x
  timestamps: utc
  label: end
  linger: 0 s
  request_interval: 5 s
  max_payload: 1 MB
  timeout: 5 s
  ca: ca.pem
  proxy: {url: "http://proxy.local:3128", credentials: {file: proxy.secret}}
  senders:
    - {name: a, token: {env: TOKEN_A}}
    - {name: b, import: far, token: {credential: b}}
    - {name: c, import: far, token: {file: ../somewhere/c.token}}
defaults: {every: 6 h, as: counter, gap: spread}
buses:
  line:
    serial: riser.port
    baudrate: 115200
    parity: odd
    stopbits: 2
    framing: ascii
    poll: 10 s
    timeout: 300 ms
    retries: 0
    pause: 20 ms
    pause_after_open: 2 s
    echo: true
    rs485: true
  net:
    tcp: "[fe80::1]:802"
    framing: tls
    disconnect: after_round
    tls: {ca: ca.pem, certificate: own.pem, key: own.key}
meters:
  - name: m
    bus: net
    unit: 0
    profile: mine
    import: far
    multiplier: 0.001
    serial_number: 0077
    max_power: 1.5 MW
    send: [{meterID: 0077, quantity: volume_total, gap: skip, as: consumption}]
profiles: profiles/
buffer: {path: data/readings.db, keep: 30 d, max_size: 500 MB}
clock: {assume_synchronised: true}
log: {format: json, level: debug}
""",
        {"TOKEN_A": " t0ken \n"},
        tokens=False,
    ).config
    energinet = config.energinet
    assert (energinet.url, energinet.timestamps, energinet.label) == (
        "http://[::1]:8080/x",
        "utc",
        "end",
    )
    assert (energinet.linger, energinet.request_interval, energinet.max_payload) == (
        0,
        5 * SECOND,
        1_000_000,
    )
    assert energinet.ca == str(folder / "ca.pem")
    assert energinet.proxy is not None
    assert energinet.proxy.credentials is not None
    assert energinet.proxy.credentials().reveal() == "user:pass word"
    assert energinet.senders[0].token().reveal() == "t0ken"
    line, net = config.buses
    assert line.link == SerialLink(
        str(folder / "riser.port"), 115200, "odd", 2, "ascii", echo=True, rs485=True
    )
    assert (line.poll, line.timeout, line.retries) == (10 * SECOND, 300, 0)
    assert (line.pause, line.pause_after_open) == (20, 2 * SECOND)
    assert isinstance(net.link, TcpLink)
    assert (net.link.host, net.link.port, net.link.framing) == ("fe80::1", 802, "tls")
    assert net.link.disconnect == "after_round"
    assert net.link.tls is not None
    assert net.link.tls.key == str(folder / "own.key")
    meter = config.meters[0]
    assert (meter.multiplier, meter.serial_number) == (Decimal("0.001"), "0077")
    assert meter.max_power == 1_500_000
    entry = meter.send[0]
    assert entry.key == SeriesKey("far", "0077")
    assert (entry.as_, entry.every, entry.gap) == ("consumption", 6 * HOUR, "skip")
    assert config.buffer.path == str(folder / "data/readings.db")
    assert config.profiles == folder / "profiles"
    assert config.log == LogSettings("json", "debug")
    assert config.clock.assume_synchronised


@pytest.mark.parametrize("key", ["timezone", "energinet", "buses", "meters"])
def test_a_required_key_of_the_file_is_missed(mistakes: Mistakes, whole: str, key: str) -> None:
    keys = ["timezone", "energinet", "defaults", "buses", "meters", "profiles"]
    after = keys[keys.index(key) + 1]
    start, end = whole.index(f"{key}:"), whole.index(f"\n{after}:") + 1
    found = mistakes(whole[:start] + whole[end:])
    assert [mistake.message for mistake in found] == [f'"{key}" is missing in the configuration']


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("    - name: basement\n", "name"),
        ("      token: {file: basement.token}\n", "token"),
        ("  - name: main-supply\n", "name"),
        ("    bus: riser\n", "bus"),
        ("    unit: 1\n", "unit"),
        ("    profile: acme-e1\n", "profile"),
    ],
)
def test_a_required_key_of_an_entry_is_missed(
    mistakes: Mistakes, whole: str, line: str, key: str
) -> None:
    head, dash, _ = line.partition("- ")
    text = whole.replace(line, f"{head}-\n" if dash else "", 1)
    if dash:  # the next key moves up beside the dash
        text = text.replace(f"{head}-\n{head}  ", f"{head}- ", 1)
    assert [m.message.partition(" is missing")[0] for m in mistakes(text)] == [f'"{key}"']


def test_relative_paths_are_relative_to_the_file(
    loaded: Load, whole: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(whole)
    monkeypatch.chdir(folder.parent)
    config = load(Path(folder.name) / "gateway.yaml", environment={}).config
    monkeypatch.chdir("/")
    assert config.energinet.senders[0].token().reveal() == "abc-123"


def test_the_file_is_looked_for_where_the_option_or_the_environment_says() -> None:
    environment = {"METER_GATEWAY_CONFIG": "/b.yaml"}
    assert find_path("/a.yaml", environment) == Path("/a.yaml")
    assert find_path(None, environment) == Path("/b.yaml")
    assert find_path(None, {}) == Path("/etc/meter-gateway/gateway.yaml")


def test_a_file_that_is_not_there_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "no.yaml")
    assert caught.value.exit_code == 78
    assert "does not exist" in caught.value.mistakes[0].message
    (tmp_path / "no.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, told in (("no", "this is a folder, not a file"), ("pipe", "this is not a file")):
        with pytest.raises(ConfigurationError) as caught:
            load(tmp_path / f"{name}.yaml")
        assert caught.value.mistakes[0].message == told


def test_a_profile_of_one_s_own_that_is_not_read_for_its_name_is_warned_of(
    loaded: Load, mistakes: Callable[..., list[Mistake]], whole: str, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "My Meter.yaml").touch()
    for profile in PROFILES.iterdir():
        (own / profile.name).write_text(profile.read_text())
    text = whole.replace(str(PROFILES), "own")
    (found,) = loaded(text).warnings
    assert (found.line, found.suggestion) == (text.count("\n"), "rename it to my-meter.yaml")
    (refused,) = mistakes(text.replace("profile: acme-heat", "profile: My Meter"))
    assert refused.suggestion == 'rename "My Meter.yaml" to my-meter.yaml, and write my-meter'


def test_what_is_to_be_looked_at_in_a_profile_of_one_s_own_is_told(
    loaded: Load, whole: str, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for profile in PROFILES.iterdir():
        (own / profile.name).write_text(profile.read_text())
    (own / "acme-e1.yaml").write_text(
        (PROFILES / "acme-e1.yaml").read_text().replace("19200", "9601")
    )
    (found,) = loaded(whole.replace(str(PROFILES), "own")).warnings
    assert found.file == str(own / "acme-e1.yaml")
    assert "9601 is not a usual rate" in found.message


def test_a_file_that_is_not_utf8_is_refused_where_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"timezone: Europe/Oslo\nlog: \xe9\n")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "x.yaml")
    found = caught.value.mistakes[0]
    assert (found.line, found.column) == (2, 6)


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "text\n", "{}\n", "a: *b\n"])
def test_what_is_no_configuration_is_said_so(mistakes: Mistakes, text: str) -> None:
    assert mistakes(text)


def test_the_limits_of_the_api_bend_only_for_this_machine(mistakes: Mistakes, whole: str) -> None:
    faster = "energinet:\n  request_interval: 5 s\n  max_payload: 600 kB\n"
    assert len(mistakes(whole.replace("energinet:\n", faster))) == 2
    local = faster + "  url: http://127.0.0.1:1/x\n"
    assert mistakes(whole.replace("energinet:\n", local)) == []
    near = faster + "  url: http://192.168.0.1:1/x\n"
    assert len(mistakes(whole.replace("energinet:\n", near))) == 3


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "https://",
        "https://user:pw@host/x",
        "//host",
        "https://h:99999/",
        "https://h/?a",
        "https://[::1",
        "https://a b/",
    ],
)
def test_a_url_is_only_a_plain_address(mistakes: Mistakes, whole: str, url: str) -> None:
    found = mistakes(whole.replace("energinet:\n", f'energinet:\n  url: "{url}"\n'))
    assert len(found) == 1
    assert "pw" not in found[0].message


def test_fifty_senders_share_an_import_and_no_more(mistakes: Mistakes, whole: str) -> None:
    def senders(count: int, group: str) -> str:
        return "".join(
            f"    - {{name: {group}{n}, import: {group}, token: {{env: {group}_{n}}}}}\n"
            for n in range(count)
        )

    environment = {f"{g}_{n}": f"{g}{n}" for g in "ab" for n in range(51)}
    text = whole.replace("    unit: ", "    sender: basement\n    unit: ")
    fifty = text.replace("  senders:\n", "  senders:\n" + senders(50, "a") + senders(50, "b"))
    assert mistakes(fifty, environment) == []
    more = text.replace("  senders:\n", "  senders:\n" + senders(51, "a"))
    assert ["50 senders" in mistake.message for mistake in mistakes(more, environment)] == [True]


@pytest.mark.parametrize(
    ("framing", "unit", "right"),
    [
        ("tcp", 0, True),
        ("tcp", 255, True),
        ("tcp", 256, False),
        ("rtu", 0, False),
        ("rtu", 247, True),
        ("rtu", 248, False),
        ("ascii", 248, False),
    ],
)
def test_the_unit_fits_the_framing(
    mistakes: Mistakes, whole: str, framing: str, unit: int, right: bool
) -> None:
    text = whole.replace("unit: 255", f"unit: {unit}").replace(
        "    tcp: ", f"    framing: {framing}\n    tcp: "
    )
    assert (mistakes(text) == []) is right


def test_serial_settings_come_from_the_file_then_the_profiles_then_the_default(
    loaded: Load, whole: str
) -> None:
    def link(text: str) -> SerialLink:
        found = loaded(text).config.buses[0].link
        assert isinstance(found, SerialLink)
        return found

    assert link(whole).baudrate == 19200
    partly = link(whole.replace("    serial: ", "    baudrate: 2400\n    serial: "))
    assert (partly.baudrate, partly.parity) == (2400, "even")
    silent = link(
        whole.replace("profile: acme-e1", "profile: acme-heat")
        .replace("active_energy_import_total", "volume_total")
        .replace("active_power_total", "thermal_power")
    )
    assert (silent.baudrate, silent.parity, silent.stopbits) == (9600, "none", 1)


def test_profiles_that_do_not_agree_leave_the_default_with_a_warning(
    loaded: Load, whole: str
) -> None:
    text = whole.replace(
        "  - name: heating\n",
        '  - {name: two, bus: riser, unit: 2, profile: acme-e1-pro, send: [{meterID: "9", '
        "quantity: voltage_l1, as: last}]}\n  - name: heating\n",
    )
    result = loaded(text)
    link = result.config.buses[0].link
    assert isinstance(link, SerialLink)
    assert (link.baudrate, link.parity) == (9600, "even")
    assert [(w.line, "19200" in w.message) for w in result.warnings] == [(11, True)]


def test_one_port_is_one_bus(mistakes: Mistakes, whole: str, folder: Path) -> None:
    os.symlink("riser.port", folder / "other.port")
    text = whole.replace("buses:\n", "buses:\n  second: {serial: other.port}\n")
    found = mistakes(text)
    assert [m.message for m in found] == [
        'serial: bus "riser" has the port of bus "second", first on line 11'
    ]


def test_a_missing_or_unstable_port_is_only_a_warning(loaded: Load, whole: str) -> None:
    result = loaded(whole.replace("riser.port", "/dev/ttyUSB77"))
    assert [w.message.partition(": ")[2][:30] for w in result.warnings] == [
        "/dev/ttyUSB77 is not there now",
        "/dev/ttyUSB77 may get another ",
    ]


@pytest.mark.parametrize(
    "value", ["100000 h", "7 h", "4 s", "2 d", "10", "0 s", "1.5 ms", "7.5 s", "6.4 s"]
)
def test_every_divides_the_day(mistakes: Mistakes, whole: str, value: str) -> None:
    found = mistakes(whole.replace("every: 1 h", f"every: {value}"))
    assert [(m.line, m.message.startswith("every: ")) for m in found] == [(8, True)]


def test_the_first_missing_every_and_as_are_explained_once(mistakes: Mistakes, whole: str) -> None:
    text = whole.replace("defaults:\n  every: 1 h\n  as: consumption\n", "")
    found = mistakes(text)
    assert [(m.line, m.message) for m in found] == [
        (18, '"every" is missing, here and in `defaults` (and in 1 more entry)'),
        (18, '"as" is missing, here and in `defaults`'),
    ]
    assert "consumption: how far" in found[1].suggestion


def test_a_default_that_does_not_fit_is_a_mistake_at_its_entry(
    mistakes: Mistakes, whole: str
) -> None:
    found = mistakes(whole.replace(", as: mean, every", ", every"))
    assert [(m.line, "from `defaults`" in m.message) for m in found] == [(22, True)]


def test_a_meter_id_stands_once_in_an_import(mistakes: Mistakes, whole: str, folder: Path) -> None:
    found = mistakes(whole.replace("7777777779", "7777777777"))
    assert [m.line for m in found] == [28]
    assert found[0].other is not None
    assert found[0].other[0] == 21
    assert "7777777777" in found[0].other[1]
    two = whole.replace(
        "  senders:\n", "  senders:\n    - {name: roof, import: south, token: {env: ROOF}}\n"
    ).replace("7777777779", "7777777777")
    two = two.replace("    unit: 1\n", "    unit: 1\n    sender: roof\n").replace(
        "    unit: 255\n", "    unit: 255\n    import: north-gate\n"
    )
    assert mistakes(two, {"ROOF": "other"}) == []


def test_a_meter_has_a_sender_an_import_or_the_only_sender(mistakes: Mistakes, whole: str) -> None:
    two = whole.replace("  senders:\n", "  senders:\n    - {name: roof, token: {env: ROOF}}\n")
    environment = {"ROOF": "other"}

    def messages(with_: str) -> list[str]:
        text = two.replace("    unit: ", f"    {with_}\n    unit: ")
        return [m.message for m in mistakes(text, environment)]

    assert len(messages("# nothing")) == 2
    assert "needs a sender" in messages("# nothing")[0]
    assert messages("sender: roof") == []
    assert messages("import: north-gate") == []
    assert messages("sender: rof") == ['sender: there is no sender "rof"'] * 2
    assert messages("import: north") == ['import: no sender has the import "north"'] * 2
    assert len(messages("sender: roof\n    import: north-gate")) == 2


def test_two_meters_of_one_unit_are_refused_unless_their_profiles_differ(
    mistakes: Mistakes, loaded: Load, whole: str
) -> None:
    entry = (
        "  - {name: two, bus: riser, unit: 1, profile: PROFILE, send: [{meterID: x,"
        " quantity: voltage_l1, as: last}]}\n  - name: heating\n"
    )
    same = whole.replace("  - name: heating\n", entry.replace("PROFILE", "acme-e1"))
    assert ["is that of meter" in m.message for m in mistakes(same)] == [True]
    other = whole.replace("  - name: heating\n", entry.replace("PROFILE", "acme-e1-pro"))
    assert any("is that of meter" in w.message for w in loaded(other).warnings)


def test_a_typo_in_a_required_key_is_one_mistake(mistakes: Mistakes, whole: str) -> None:
    found = mistakes(whole.replace("    profile: acme-e1", "    profil: acme-e1"))
    assert [(m.line, m.column, m.suggestion) for m in found] == [(19, 5, 'did you mean "profile"?')]


def test_a_key_in_the_wrong_place_says_where_it_belongs(mistakes: Mistakes, whole: str) -> None:
    found = mistakes(whole.replace("energinet:\n", "energinet:\n  poll: 1 min\n"))
    assert [m.suggestion for m in found] == ["it belongs to a bus"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "riser.port",
            "COM3",
            "that is its name on Windows; ls /dev/serial/by-id shows those here",
        ),
        ("riser.port", "ttyUSB0", 'did you mean "/dev/ttyUSB0"?'),
        ("name: heating", "name: Main-Supply", "give one of them another name"),
        ("Europe/Oslo", "Etc/GMT-1", "such as Europe/Oslo"),
        ('"7777777777"', "7.7e9", "compare it with Energinet's"),
        ('"7777777777"', "7777777777.0", "compare it with Energinet's"),
        ('"7777777777"', '"7777 777 777"', "compare it with Energinet's"),
    ],
)
def test_what_is_hardly_meant_so_is_warned_of(
    loaded: Load, whole: str, old: str, new: str, expected: str
) -> None:
    result = loaded(whole.replace(old, new))
    assert [w.suggestion for w in result.warnings] == [expected]


def test_a_zone_of_a_fixed_offset_says_which_way_it_goes(loaded: Load, whole: str) -> None:
    (warning,) = loaded(whole.replace("Europe/Oslo", "Etc/GMT+5")).warnings
    assert "5 h behind UTC, and knows no summer time" in warning.message
    assert loaded(whole.replace("Europe/Oslo", "Etc/GMT")).warnings == ()


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
def test_a_file_of_windows_is_read_as_any_other(folder: Path, whole: str, ends: str) -> None:
    path = folder / "gateway.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + whole.replace("\n", ends).encode())
    assert load(path, environment={}).config.meters
    path.write_bytes(whole.replace("\n", ends).replace("unit: 1", "unit: x").encode())
    with pytest.raises(ConfigurationError) as caught:
        load(path, environment={})
    assert caught.value.mistakes[0].line == 1 + whole[: whole.index("unit: 1")].count("\n")


def test_a_mean_over_less_than_a_poll_is_warned_of(loaded: Load, whole: str) -> None:
    result = loaded(whole.replace("every: 15 min", "every: 30 s"))
    assert ["less often than" in w.message for w in result.warnings] == [True]


def test_mistakes_of_a_profile_are_shown_in_its_own_file(
    mistakes: Mistakes, whole: str, folder: Path
) -> None:
    (folder / "own").mkdir()
    (folder / "own" / "acme-e1.yaml").write_text("maker: A\nmodel: B\nkind: solar\n")
    start = whole.index("profiles:")
    found = mistakes(whole[:start] + "profiles: own\n")
    files = {Path(m.file).name for m in found}
    assert "acme-e1.yaml" in files
    assert not any("quantity" in m.message for m in found if m.file.endswith("gateway.yaml"))
