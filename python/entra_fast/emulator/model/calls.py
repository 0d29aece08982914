"""Who may call whom, as plain data: the inbound rules of all applications, and parts of them to look at.

No HTTP and no drawing. What the last requests were is an argument.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from entra_fast.emulator.model.registry import Registry, Tenant

MAX_PLACES: Final = 80
"""Maximum number of places in one picture. Where there are more applications, it shows their namespaces."""
MAX_BYTES: Final = 120_000
"""Maximum size of all calls of one picture on a page of HTML."""
CALL_BYTES: Final = 260
"""What a call takes on a page beside its names."""

Kind = Literal["application", "missing", "namespace"]
"""`missing`: a name in a rule that no application of the tenant has."""
State = Literal["rule", "missing", "none"]
"""`rule`: allows the call. `missing`: names no application. `none`: no rule, but it was asked for."""


@dataclass(frozen=True, slots=True)
class Place:
    """A box of the picture.

    Attributes:
        key: unique among all tenants.
        group: what it is drawn in: its namespace; for a namespace, its cluster.
        size: number of applications in a namespace.
    """

    key: str
    kind: Kind
    group: str
    name: str
    size: int = 1

    @property
    def label(self) -> str:
        """The part of the name that its group does not have; for a namespace, with its size."""
        own = self.name.removeprefix(f"{self.group}:")
        return f"{own} ({self.size})" if self.kind == "namespace" else own


@dataclass(frozen=True, slots=True)
class Call:
    """An arrow of the picture.

    Attributes:
        number: position of the rule among the target's, from 1; 0 if there is none, or more than one.
        location: `<file>:<line>` of that rule.
        refused: whether the last request was refused.
        count: number of pairs of applications that it stands for.
    """

    consumer: Place
    target: Place
    state: State
    number: int = 0
    location: str = ""
    refused: bool = False
    count: int = 1

    @property
    def size(self) -> int:
        """About how many bytes it takes on a page: its names are in the drawing, in links, in a table."""
        consumer, target = len(self.consumer.name), len(self.target.name)
        return CALL_BYTES + 2 * consumer + 3 * target + 2 * len(self.location)


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn: places in columns, callers on the left, what they call on the right.

    Attributes:
        more_places, more_calls: how many are left out.
        centre: key of the application that it is about, if any.
    """

    columns: tuple[tuple[Place, ...], ...]
    calls: tuple[Call, ...]
    more_places: int = 0
    more_calls: int = 0
    centre: str = ""

    @property
    def of_namespaces(self) -> bool:
        """Whether it shows namespaces only."""
        return all(place.kind == "namespace" for column in self.columns for place in column)


class Calls:
    """Everything that the manifests say about calls."""

    def __init__(self, registry: Registry, last: Mapping[tuple[str, str], bool]) -> None:
        """Args:
        last: for pairs of consumer and target that were asked for, whether the last request was granted.
        """
        self._places: dict[str, Place] = {}
        self._calls: list[Call] = []
        for tenant in registry.tenants:
            for application in tenant.applications.values():
                self._place(tenant, application.name)
        for tenant in registry.tenants:
            self._add_rules(registry, tenant, last)
        self._sizes = Counter(p.group for p in self._places.values() if p.kind == "application")

    def _place(self, tenant: Tenant, name: str) -> Place:
        key = f"{tenant.name}/{name}"
        if key not in self._places:
            kind: Kind = "application" if name in tenant.applications else "missing"
            self._places[key] = Place(key, kind, name.rpartition(":")[0], name)
        return self._places[key]

    def _add_rules(self, registry: Registry, tenant: Tenant, last: Mapping[tuple[str, str], bool]) -> None:
        written: set[tuple[str, str]] = set()
        for target in tenant.applications.values():
            for number, rule in enumerate(target.rules, 1):
                pair = (rule.consumer, target.name)
                if pair in written or rule.consumer == target.name:
                    continue  # the first rule for a consumer wins; an application may always call itself
                in_entra_id = rule.consumer in tenant.applications
                if not in_entra_id and registry.workloads.grants_in_tokenx(*pair):
                    continue  # the picture is about Entra ID
                written.add(pair)
                consumer = self._place(tenant, rule.consumer)
                state: State = "rule" if consumer.kind == "application" else "missing"
                refused = not last.get(pair, True)
                self._calls.append(
                    Call(consumer, self._place(tenant, target.name), state, number, rule.location, refused)
                )
        for pair, granted in last.items():
            known = all(name in tenant.applications for name in pair)
            if known and not granted and pair not in written and pair[0] != pair[1]:
                consumer = self._place(tenant, pair[0])
                self._calls.append(Call(consumer, self._place(tenant, pair[1]), "none", refused=True))

    def applications(self) -> tuple[str, ...]:
        """Names for `of_application`."""
        return tuple(dict.fromkeys(place.name for place in self._places.values()))

    def namespaces(self) -> tuple[str, ...]:
        """Names for `of_namespace`."""
        return tuple(sorted({place.group for place in self._places.values()}))

    def everything(self) -> Picture:
        """All applications, or all namespaces where that is too much for one picture."""
        if len(self._places) <= MAX_PLACES and sum(call.size for call in self._calls) <= MAX_BYTES:
            return _picture(list(self._places.values()), self._calls)
        spaces = {space.key: space for place in self._places.values() for space in [self._namespace(place)]}
        return _picture(list(spaces.values()), self._folded(lambda place: True))

    def of_namespace(self, name: str) -> Picture | None:
        """The applications of a namespace (`<cluster>:<namespace>`), and the namespaces around it; None if
        there is no such namespace.
        """
        own = [place for place in self._places.values() if place.group == name]
        near = self._folded(lambda place: place.group != name)
        return _around(own, [call for call in near if {call.consumer, call.target} & {*own}]) if own else None

    def of_application(self, name: str) -> Picture | None:
        """An application with its consumers and targets; None if there is no such application."""
        own = [place for place in self._places.values() if place.name == name]
        near = [call for call in self._calls if name in (call.consumer.name, call.target.name)]
        return replace(_around(own, near), centre=own[0].key) if own else None

    def _folded(self, fold: Callable[[Place], bool]) -> list[Call]:
        """The calls with some places replaced by their namespaces: one for each pair."""
        pairs: dict[tuple[str, str], Call] = {}
        for call in self._calls:
            consumer = self._namespace(call.consumer) if fold(call.consumer) else call.consumer
            target = self._namespace(call.target) if fold(call.target) else call.target
            first = pairs.get((consumer.key, target.key))
            if consumer == target:
                continue
            if first is None:
                pairs[consumer.key, target.key] = replace(call, consumer=consumer, target=target)
                continue
            # The call that allows most says what the pair is.
            state = min(first.state, call.state, key=("rule", "missing", "none").index)
            refused, count = first.refused or call.refused, first.count + call.count
            pairs[consumer.key, target.key] = Call(consumer, target, state, refused=refused, count=count)
        return list(pairs.values())

    def _namespace(self, place: Place) -> Place:
        """The namespace of an application."""
        key = place.key.removesuffix(place.name) + place.group
        cluster = place.group.partition(":")[0]
        return Place(key, "namespace", cluster, place.group, self._sizes[place.group])


def _picture(places: Sequence[Place], calls: Sequence[Call]) -> Picture:
    """Groups in columns of about the same height: those that call most come first."""
    shown = _most_connected(places, calls)
    balance: Counter[str] = Counter()
    for call in calls:
        if call.state != "none" and call.consumer.group != call.target.group:
            balance[call.consumer.group] += call.count
            balance[call.target.group] -= call.count
    ordered = sorted(shown, key=lambda place: (-balance[place.group], place.group, place.name))
    sizes = Counter(place.group for place in ordered)
    count = 2 if len(ordered) <= 6 else 3 if len(ordered) <= 30 else 4
    # A group stays together unless it is higher than a column.
    limit = 1.25 * len(ordered) / count
    columns: list[list[Place]] = [[]]
    for place in ordered:
        column = columns[-1]
        begins = not column or column[-1].group != place.group
        if column and len(columns) < count and len(column) + (sizes[place.group] if begins else 1) > limit:
            columns.append([])
        columns[-1].append(place)
    return _limited(columns, calls, len(places) - len(shown))


def _around(own: Sequence[Place], calls: Sequence[Call]) -> Picture:
    """Who calls them on the left, what they call on the right."""
    middle = _most_connected(own, calls)
    keys = {place.key for place in own}
    left = {call.consumer.key: call.consumer for call in calls if call.consumer.key not in keys}
    right = {call.target.key: call.target for call in calls if call.target.key not in {*keys, *left}}
    sides = [_most_connected(list(side.values()), calls) for side in (left, right)]
    more = len(own) + len(left) + len(right) - len(middle) - sum(map(len, sides))
    columns = [sorted(side, key=lambda place: place.name) for side in (sides[0], middle, sides[1])]
    return _limited([column for column in columns if column], calls, more)


def _most_connected(places: Sequence[Place], calls: Sequence[Call]) -> Sequence[Place]:
    """The first MAX_PLACES, by number of calls."""
    if len(places) <= MAX_PLACES:
        return places
    degree: Counter[str] = Counter()
    for call in calls:
        degree[call.consumer.key] += call.count
        degree[call.target.key] += call.count
    return sorted(places, key=lambda place: (-degree[place.key], place.key))[:MAX_PLACES]


def _limited(columns: Sequence[Sequence[Place]], calls: Sequence[Call], more_places: int) -> Picture:
    """The calls between the places: refused ones first, as many as fit on a page."""
    shown = {place.key for column in columns for place in column}
    between = [call for call in calls if call.consumer.key in shown and call.target.key in shown]
    between.sort(key=lambda call: (not call.refused, -call.count))
    total = itertools.accumulate(call.size for call in between)
    kept = [call for call, size in zip(between, total, strict=True) if size <= MAX_BYTES]
    kept.sort(key=lambda call: (call.target.name, call.consumer.name))
    return Picture(tuple(map(tuple, columns)), tuple(kept), more_places, len(calls) - len(kept))
