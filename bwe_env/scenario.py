"""Named scenarios from a file: a network and a call each, in JSON or TOML.

    [alternating]
    description = "500 and 100 kbps by turns"
    trace = { time_s = [0, 30], capacity_bps = [500_000, 100_000], end_s = 60, repeats = true }
    link = { queue_limit_bytes = 18_750 }
    forward = { propagation_delay_s = 0.02 }
    reverse = { propagation_delay_s = 0.02 }
    call = { duration_s = 180 }

The tables `link`, `forward`, `reverse`, `relay` and `call` hold the options of the classes of
`bwe_env.config`, nested as there; what is left out keeps its default. A trace is given by points,
or as the `file` of a CSV beside the scenario file. `cross_traffic` is a list of tables, each with
the options of `OnOffTraffic` or `TcpTraffic` and with `kind = "on_off"` or `"tcp"`;
`competing_calls`, `competing_start_s` and `competing_added_delay_s` are those of `Network`. A
`replay` of losses is 0 and 1 in a list, or the name of a file beside the scenario file
(``loss = { replay = "losses.txt" }``). What is wrong is said with file, scenario, key, value and
what is allowed; nothing is corrected in silence.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bwe_env.config import (
    CallConfig,
    LinkConfig,
    OnOffTraffic,
    PathConfig,
    RelayConfig,
    TcpTraffic,
    from_mapping,
)
from bwe_env.errors import ConfigError, UnknownNameError, unknown_name
from bwe_env.network import Network
from bwe_env.trace.readers import read_csv, read_losses
from bwe_env.trace.trace import Trace

T = TypeVar("T")

_COMPETING_KEYS = ("competing_calls", "competing_start_s", "competing_added_delay_s")
_KEYS = (
    "description",
    "start_s",
    "trace",
    "link",
    "forward",
    "reverse",
    "relay",
    "cross_traffic",
    *_COMPETING_KEYS,
    "call",
)
_TRAFFIC = {"on_off": OnOffTraffic, "tcp": TcpTraffic}
_POINT_KEYS = ("time_s", "capacity_bps", "end_s")
_TRACE_KEYS = (*_POINT_KEYS, "file", "network_type", "repeats")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A call that can be run: ``run_calls([scenario.network], ..., call=scenario.call)``."""

    name: str
    """unique within its file; the network's name, too, so that its seeds give the same calls"""
    network: Network
    call: CallConfig
    description: str = ""


def read_scenarios(path: str | Path) -> dict[str, Scenario]:
    """All scenarios of a ``.json`` or ``.toml`` file by name, in its order.

    Raises:
        ConfigError: the file cannot be read, or a value is missing, of the wrong type, out of its
            range, or the trace is shorter than the call without saying that it repeats.
        UnknownNameError: a key that means nothing; the known ones are listed.
        TraceFormatError: the points or the file of a trace make no trace.
    """
    path = Path(path)
    values = _read(path)
    if not isinstance(values, Mapping) or not values:
        raise ConfigError(f"{path}: expected at least one scenario, as a table under its name.")
    return {name: _scenario(name, table, path) for name, table in values.items()}


def read_scenario(path: str | Path, name: str) -> Scenario:
    """One scenario of a file.

    Raises:
        UnknownNameError: the file has none of this name; its names are listed.
        ConfigError, TraceFormatError: see `read_scenarios`.
    """
    scenarios = read_scenarios(path)
    if name not in scenarios:
        raise unknown_name(f"scenario of {path}", name, scenarios)
    return scenarios[name]


def _read(path: Path) -> Any:
    if path.suffix not in (".json", ".toml"):
        raise ConfigError(f"{path}: a scenario file is called NAME.toml or NAME.json.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        return json.loads(text, object_pairs_hook=_without_repeats)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValueError as error:  # of both parsers, with line and column
        raise ConfigError(f"{path}: not {path.suffix[1:].upper()}: {error}") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"the key {name!r} stands twice in one table; keep one of them.")
    return table


def _scenario(name: str, table: Any, path: Path) -> Scenario:
    where = f"{path}: scenario {name!r}"
    _check_keys(table, _KEYS, where)
    table = _with_losses(table, path.parent)
    call = _config(CallConfig, table.get("call", {}), f"{where}, call")
    trace, repeats = _trace(name, table.get("trace"), path, f"{where}, trace")
    start_s = _number(table.get("start_s", 0.0), "start_s", where)
    if not 0.0 <= start_s < trace.duration_s:
        raise ConfigError(
            f"{where}: start_s={start_s:g} must lie inside the trace, at least 0 and below "
            f"{trace.duration_s:g} s."
        )
    if not repeats and trace.duration_s - start_s < call.duration_s:
        raise ConfigError(
            f"{where}: the trace lasts {trace.duration_s - start_s:g} s from start_s={start_s:g} "
            f"on, but call.duration_s={call.duration_s:g} s. Give a trace of at least "
            f"{call.duration_s + start_s:g} s, a shorter call, or trace.repeats = true."
        )
    network = _network(table, trace, start_s, where)
    description = table.get("description", "")
    if not isinstance(description, str):
        raise ConfigError(f"{where}: description={description!r} must be text.")
    return Scenario(name=name, network=network, call=call, description=description)


def _network(table: Mapping[str, Any], trace: Trace, start_s: float, where: str) -> Network:
    link = _config(LinkConfig, table.get("link", {}), f"{where}, link")
    forward = _config(PathConfig, table.get("forward", {}), f"{where}, forward")
    reverse = _config(PathConfig, table.get("reverse", {}), f"{where}, reverse")
    relay = _config(RelayConfig, table["relay"], f"{where}, relay") if "relay" in table else None
    sources = _cross_traffic(table.get("cross_traffic", []), where)
    competing = {key: table[key] for key in _COMPETING_KEYS if key in table}
    for key in _COMPETING_KEYS[1:]:
        values = competing.get(key, [])
        if not isinstance(values, list):
            raise ConfigError(f"{where}: {key}={values!r} must be a list of numbers.")
        for value in values:
            _number(value, key, where)
    try:
        return Network(
            trace=trace,
            start_s=start_s,
            link=link,
            forward=forward,
            reverse=reverse,
            relay=relay,
            cross_traffic=sources,
            **competing,
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _cross_traffic(tables: Any, where: str) -> tuple[OnOffTraffic | TcpTraffic, ...]:
    if not isinstance(tables, list):
        raise ConfigError(f"{where}: cross_traffic={tables!r} must be a list of tables.")
    sources: list[OnOffTraffic | TcpTraffic] = []
    for number, table in enumerate(tables):
        place = f"{where}, cross_traffic {number}"
        if not isinstance(table, Mapping) or "kind" not in table:
            kinds = " or ".join(map(repr, _TRAFFIC))
            raise ConfigError(f"{place}: {table!r} must be a table with kind = {kinds}.")
        if table["kind"] not in _TRAFFIC:
            raise unknown_name(f"kind of {place}", str(table["kind"]), _TRAFFIC)
        options = {key: value for key, value in table.items() if key != "kind"}
        sources.append(_config(_TRAFFIC[table["kind"]], options, place))
    return tuple(sources)


def _with_losses(table: Any, folder: Path) -> Any:
    """The same table with what the files hold that its replays of losses name."""
    if not isinstance(table, Mapping):
        return table
    return {
        key: read_losses(folder / value)
        if key == "replay" and isinstance(value, str)
        else _with_losses(value, folder)
        for key, value in table.items()
    }


def _trace(name: str, table: Any, path: Path, where: str) -> tuple[Trace, bool]:
    """The trace, and whether a call may outlast it."""
    if table is None:
        raise ConfigError(
            f"{where}: missing; give time_s and capacity_bps (lists) with end_s, or a file."
        )
    _check_keys(table, _TRACE_KEYS, where)
    repeats = table.get("repeats", False)
    if not isinstance(repeats, bool):
        raise ConfigError(f"{where}: repeats={repeats!r} must be true or false.")
    network_type = table.get("network_type", "pattern")
    points = [key for key in _POINT_KEYS if key in table]
    if "file" in table:
        if points:
            raise ConfigError(f"{where}: give file or {points[0]}, not both.")
        if not isinstance(table["file"], str):
            raise ConfigError(f"{where}: file={table['file']!r} must be the name of a CSV file.")
        file = path.parent / table["file"]
        return read_csv(file, network_type=network_type, name=name), repeats
    for key in _POINT_KEYS:
        if key not in table:
            raise ConfigError(f"{where}: {key} is missing; points need {', '.join(_POINT_KEYS)}.")
    for key in ("time_s", "capacity_bps"):
        if not isinstance(table[key], list):
            raise ConfigError(f"{where}: {key}={table[key]!r} must be a list of numbers.")
        for value in table[key]:
            _number(value, key, where)
    if len(table["time_s"]) != len(table["capacity_bps"]):
        raise ConfigError(
            f"{where}: time_s has {len(table['time_s'])} points and capacity_bps "
            f"{len(table['capacity_bps'])}; each time needs one capacity."
        )
    trace = Trace.from_points(
        table["time_s"],
        table["capacity_bps"],
        name=name,
        network_type=network_type,
        source=str(path.name),
        end_s=_number(table["end_s"], "end_s", where),
    )
    return trace, repeats


def _number(value: Any, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{where}: {key}={value!r} must be a number.")
    return float(value)


def _check_keys(table: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: expected a table with {', '.join(known)}; got {table!r}.")
    for key in table:
        if key not in known:
            raise unknown_name(f"key of {where}", key, known)


def _config(cls: type[T], table: Any, where: str) -> T:
    """A dataclass of `bwe_env.config`, with the place in front of whatever is wrong."""
    try:
        _check_types(cls, table, "")
        return from_mapping(cls, table)
    except (ConfigError, UnknownNameError) as error:
        raise type(error)(f"{where}: {error}") from None


def _check_types(cls: Any, table: Any, place: str) -> None:
    """Refuse a value that is not of its field's kind; ranges are the dataclass's own business."""
    fields = [field.name for field in dataclasses.fields(cls)]
    if not isinstance(table, Mapping):
        name = place.rstrip(".") or "it"
        raise ConfigError(f"{name}={table!r} must be a table with {', '.join(fields)}.")
    hints = typing.get_type_hints(cls)
    for key, value in table.items():
        if key not in hints:
            raise unknown_name(f"option {place}{key} of {cls.__name__}", key, fields)
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            _check_types(hint, value, f"{place}{key}.")
        elif hint is bool and not isinstance(value, bool):
            raise ConfigError(f"{place}{key}={value!r} must be true or false.")
        elif hint in (int, float) and (
            isinstance(value, bool) or not isinstance(value, (int, float))
        ):
            raise ConfigError(f"{place}{key}={value!r} must be a number.")
        elif hint is int and not float(value).is_integer():
            raise ConfigError(f"{place}{key}={value!r} must be a whole number.")
