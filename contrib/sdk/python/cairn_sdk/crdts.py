"""The eight CRDTs, as a handler of a CRDT entity sees and changes them.

Elements of sets, keys of maps and values of registers are messages, or str, bytes, bool, int (64 bits) or float;
which of these is part of what they are: 1, 1.0 and True are three elements.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Generic, Iterator, List, Optional, Tuple, Type, TypeVar

from google.protobuf import any_pb2, symbol_database, wrappers_pb2
from google.protobuf.message import DecodeError, Message

from . import protos
from .declared import pack
from .errors import EntityError

C = TypeVar("C", bound="Value")
Key = Tuple[str, bytes]

_PRIMITIVE = "p.cloudstate.io/"
# Each has the value as its field 1, as the protocol's primitives do. What is read, and what is written.
_READ: Dict[str, Any] = {
    "string": wrappers_pb2.StringValue, "bytes": wrappers_pb2.BytesValue, "bool": wrappers_pb2.BoolValue,
    "int64": wrappers_pb2.Int64Value, "int32": wrappers_pb2.Int32Value, "double": wrappers_pb2.DoubleValue,
    "float": wrappers_pb2.FloatValue}
_WRITTEN = {str: "string", bytes: "bytes", bool: "bool", int: "int64", float: "double"}

DEFAULT, REVERSE, CUSTOM, CUSTOM_AUTO_INCREMENT = range(4)  # clocks of a register


def to_any(value: Any) -> any_pb2.Any:
    if isinstance(value, any_pb2.Any):
        return value
    if isinstance(value, Message):
        return pack(value)
    name = _WRITTEN.get(type(value))
    if name is None:
        raise TypeError("%r can be no element, key or value: messages, str, bytes, bool, int and float can" % (value,))
    return any_pb2.Any(type_url=_PRIMITIVE + name, value=_READ[name](value=value).SerializeToString())


def from_any(packed: any_pb2.Any) -> Any:
    """What it is of; the Any itself where its type is not known here."""
    name = packed.type_url.rpartition("/")[2]
    primitive = packed.type_url.startswith(_PRIMITIVE)
    try:
        if primitive and name in _READ:
            return _READ[name].FromString(packed.value).value
        return packed if primitive else symbol_database.Default().GetSymbol(name).FromString(packed.value)
    except KeyError:
        return packed
    except DecodeError as wrong:
        raise EntityError("a %s in a CRDT cannot be read: %s" % (packed.type_url, wrong)) from wrong


def _key(packed: any_pb2.Any) -> Key:
    return packed.type_url, packed.value


def _any(key: Key) -> any_pb2.Any:
    return any_pb2.Any(type_url=key[0], value=key[1])


class Value:
    """What all eight have in common. The names that begin with an underscore are the SDK's."""

    name = ""  # the member of CrdtDelta

    def __init__(self) -> None:
        self._owner: Optional[Tuple["ORMap", Key]] = None
        self._undo: List[Callable[[], None]] = []  # since the last take
        self._changed = False

    def _change(self, undo: Callable[[], None]) -> None:
        self._undo.append(undo)
        self._changed = True
        if self._owner is not None:
            self._owner[0]._child_changed(self._owner[1])

    def _take(self) -> Any:
        """What was changed since the last time, as a CrdtDelta; None if nothing was."""
        if not self._changed:
            return None
        delta = self._delta()
        self._forget()
        return delta

    def _delta(self) -> Any:
        return protos.crdt.CrdtDelta(**{self.name: self._own_delta()})

    def _own_delta(self) -> Any:
        raise NotImplementedError

    def _whole(self) -> Any:
        """All of it, as a delta from zero."""
        raise NotImplementedError

    def _forget(self) -> None:
        self._undo, self._changed = [], False

    def _roll_back(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._forget()

    def _apply(self, delta: Any) -> None:
        """A change that the proxy tells."""
        kind = delta.WhichOneof("delta")
        if kind != self.name:
            raise EntityError("the proxy sent a delta of a %s to a %s" % (kind, type(self).__name__))
        self._apply_own(getattr(delta, kind))

    def _apply_own(self, delta: Any) -> None:
        raise NotImplementedError


class GCounter(Value):
    """Only grows."""

    name = "gcounter"

    def __init__(self) -> None:
        super().__init__()
        self.value = 0
        self._more = 0

    def increment(self, by: int = 1) -> None:
        if by < 0 or by >= 1 << 63:
            raise ValueError("a GCounter is incremented by 0 to 2^63 - 1, not by %d" % by)
        if by == 0:
            return

        def undo() -> None:
            self.value -= by
            self._more -= by
        self.value += by
        self._more += by
        self._change(undo)

    def _own_delta(self) -> Any:
        return protos.crdt.GCounterDelta(increment=self._more)

    def _whole(self) -> Any:
        return protos.crdt.CrdtDelta(gcounter=protos.crdt.GCounterDelta(increment=self.value))

    def _forget(self) -> None:
        super()._forget()
        self._more = 0

    def _apply_own(self, delta: Any) -> None:
        self.value += delta.increment


class PNCounter(Value):
    """Goes up and down."""

    name = "pncounter"

    def __init__(self) -> None:
        super().__init__()
        self.value = 0
        self._more = 0

    def increment(self, by: int = 1) -> None:
        if not -(1 << 63) <= self._more + by < 1 << 63:
            raise ValueError("a PNCounter is changed by no more than 63 bits hold at once, not by %d" % by)
        if by == 0:
            return

        def undo() -> None:
            self.value -= by
            self._more -= by
        self.value += by
        self._more += by
        self._change(undo)

    def decrement(self, by: int = 1) -> None:
        self.increment(-by)

    def _own_delta(self) -> Any:
        return protos.crdt.PNCounterDelta(change=self._more)

    def _whole(self) -> Any:
        return protos.crdt.CrdtDelta(pncounter=protos.crdt.PNCounterDelta(change=self.value))

    def _forget(self) -> None:
        super()._forget()
        self._more = 0

    def _apply_own(self, delta: Any) -> None:
        self.value += delta.change


class _Elements(Value):
    """What both sets have in common."""

    def __init__(self) -> None:
        super().__init__()
        self._items: Dict[Key, Any] = {}
        self._added: Dict[Key, None] = {}

    def __contains__(self, value: Any) -> bool:
        return _key(to_any(value)) in self._items

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._items.values()))

    def __len__(self) -> int:
        return len(self._items)

    def add(self, value: Any) -> None:
        packed = to_any(value)
        key = _key(packed)
        if key in self._items:
            return

        def undo() -> None:
            del self._items[key]
            self._added.pop(key, None)
        self._items[key] = from_any(packed)  # a copy, where it is a message
        self._added[key] = None
        self._change(undo)

    def _tell_added(self, added: Any) -> None:
        for packed in added:
            self._items[_key(packed)] = from_any(packed)

    def _forget(self) -> None:
        super()._forget()
        self._added = {}


class GSet(_Elements):
    """Only grows."""

    name = "gset"

    def _own_delta(self) -> Any:
        return protos.crdt.GSetDelta(added=[_any(key) for key in self._added])

    def _whole(self) -> Any:
        return protos.crdt.CrdtDelta(gset=protos.crdt.GSetDelta(added=[_any(key) for key in self._items]))

    def _apply_own(self, delta: Any) -> None:
        self._tell_added(delta.added)


class ORSet(_Elements):
    """Elements come and go; of an addition and a removal that did not know of each other, the addition wins."""

    name = "orset"

    def __init__(self) -> None:
        super().__init__()
        self._removed: Dict[Key, None] = {}
        self._cleared = False

    def discard(self, value: Any) -> None:
        """Removes it, if it is there."""
        key = _key(to_any(value))
        if key not in self._items:
            return
        item, own = self._items.pop(key), key in self._added
        was_removed = key in self._removed

        def undo() -> None:
            self._items[key] = item
            if own:
                self._added[key] = None
            if not was_removed:
                self._removed.pop(key, None)
        self._added.pop(key, None)
        if not own:
            self._removed[key] = None
        self._change(undo)

    def remove(self, value: Any) -> None:
        if value not in self:
            raise KeyError(value)
        self.discard(value)

    def clear(self) -> None:
        if not self._items:
            return
        before = self._items, self._added, self._removed, self._cleared

        def undo() -> None:
            self._items, self._added, self._removed, self._cleared = before
        self._items, self._added, self._removed, self._cleared = {}, {}, {}, True
        self._change(undo)

    def _own_delta(self) -> Any:
        return protos.crdt.ORSetDelta(cleared=self._cleared, removed=[_any(key) for key in self._removed],
                                      added=[_any(key) for key in self._added])

    def _whole(self) -> Any:
        return protos.crdt.CrdtDelta(orset=protos.crdt.ORSetDelta(added=[_any(key) for key in self._items]))

    def _forget(self) -> None:
        super()._forget()
        self._removed, self._cleared = {}, False

    def _apply_own(self, delta: Any) -> None:
        if delta.cleared:
            self._items = {}
        for packed in delta.removed:
            self._items.pop(_key(packed), None)
        self._tell_added(delta.added)


class LWWRegister(Value):
    """One value; the last write wins, by its clock. `value` is None until something was set."""

    name = "lwwregister"

    def __init__(self, value: Any = None) -> None:
        super().__init__()
        self._packed: Optional[any_pb2.Any] = None
        self._clock = (DEFAULT, 0)
        if value is not None:
            self.set(value)

    @property
    def value(self) -> Any:
        return None if self._packed is None else from_any(self._packed)

    def set(self, value: Any, clock: int = DEFAULT, custom: int = 0) -> None:
        """`clock`: DEFAULT (the wall clock's), REVERSE (the first write wins), CUSTOM (`custom` is the clock), or
        CUSTOM_AUTO_INCREMENT (`custom`, or one more than the present if that is not less)."""
        before = self._packed, self._clock

        def undo() -> None:
            self._packed, self._clock = before
        self._packed, self._clock = to_any(value), (clock, custom)
        self._change(undo)

    def _own_delta(self) -> Any:
        return protos.crdt.LWWRegisterDelta(value=self._packed, clock=self._clock[0],
                                            custom_clock_value=self._clock[1])

    def _whole(self) -> Any:
        return self._delta()

    def _apply_own(self, delta: Any) -> None:
        self._packed = delta.value if delta.HasField("value") else None


class Flag(Value):
    """Off at first; once it is on it stays on."""

    name = "flag"

    def __init__(self) -> None:
        super().__init__()
        self.value = False

    def __bool__(self) -> bool:
        return self.value

    def enable(self) -> None:
        if self.value:
            return

        def undo() -> None:
            self.value = False
        self.value = True
        self._change(undo)

    def _own_delta(self) -> Any:
        return protos.crdt.FlagDelta(value=self.value)

    def _whole(self) -> Any:
        return self._delta()

    def _apply_own(self, delta: Any) -> None:
        self.value = self.value or delta.value


class Vote(Value):
    """One vote for each proxy that serves this; it leaves with its proxy."""

    name = "vote"

    def __init__(self) -> None:
        super().__init__()
        self.self_vote, self.votes_for, self.voters = False, 0, 1

    @property
    def at_least_one(self) -> bool:
        return self.votes_for > 0

    @property
    def majority(self) -> bool:
        return 2 * self.votes_for > self.voters

    @property
    def all(self) -> bool:
        return self.votes_for == self.voters

    def vote(self, yes: bool) -> None:
        if yes == self.self_vote:
            return
        by = 1 if yes else -1

        def undo() -> None:
            self.self_vote = not yes
            self.votes_for -= by
        self.self_vote = yes
        self.votes_for += by
        self._change(undo)

    def _own_delta(self) -> Any:
        return protos.crdt.VoteDelta(self_vote=self.self_vote, votes_for=self.votes_for, total_voters=self.voters)

    def _whole(self) -> Any:
        return self._delta()

    def _apply_own(self, delta: Any) -> None:
        self.self_vote, self.votes_for, self.voters = delta.self_vote, delta.votes_for, delta.total_voters


class ORMap(Value, Generic[C]):
    """Entries of any of the eight kinds, maps included; they come and go as an ORSet's elements do. An entry is
    changed in place: ``map["ada"].increment()``."""

    name = "ormap"

    def __init__(self) -> None:
        super().__init__()
        self._items: Dict[Key, Tuple[Any, C]] = {}
        self._added: Dict[Key, None] = {}
        self._updated: Dict[Key, None] = {}
        self._removed: Dict[Key, None] = {}
        self._cleared = False

    def __contains__(self, key: Any) -> bool:
        return _key(to_any(key)) in self._items

    def __iter__(self) -> Iterator[Any]:
        return iter([key for key, _ in self._items.values()])

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, key: Any) -> C:
        found = self._items.get(_key(to_any(key)))
        if found is None:
            raise KeyError(key)
        return found[1]

    def get(self, key: Any) -> Optional[C]:
        found = self._items.get(_key(to_any(key)))
        return None if found is None else found[1]

    def items(self) -> List[Tuple[Any, C]]:
        return list(self._items.values())

    def entry(self, key: Any, kind: Type[C]) -> C:
        """The entry, made of this kind if there is none."""
        found = self.get(key)
        if found is None:
            found = self[key] = kind()
        return found

    def __setitem__(self, key: Any, value: C) -> None:
        """A new entry, in place of what is there. The value belongs to the map from then on."""
        packed = to_any(key)
        name = _key(packed)
        if not isinstance(value, Value) or value._owner is not None:
            raise TypeError("an entry is a CRDT that is in no other map, not %r" % (value,))
        self._drop(name)

        def undo() -> None:
            del self._items[name]
            self._added.pop(name, None)
            value._owner = None
        self._items[name] = (from_any(packed), value)
        self._added[name] = None
        value._owner = (self, name)
        value._forget()  # it goes out whole
        self._change(undo)

    def __delitem__(self, key: Any) -> None:
        name = _key(to_any(key))
        if name not in self._items:
            raise KeyError(key)
        self._drop(name)

    def discard(self, key: Any) -> None:
        """Removes it, if it is there."""
        self._drop(_key(to_any(key)))

    def _drop(self, name: Key) -> None:
        if name not in self._items:
            return
        item, own, updated = self._items.pop(name), name in self._added, name in self._updated
        was_removed = name in self._removed

        def undo() -> None:
            self._items[name] = item
            item[1]._owner = (self, name)
            if own:
                self._added[name] = None
            if updated:
                self._updated[name] = None
            if not was_removed:
                self._removed.pop(name, None)
        item[1]._owner = None
        self._added.pop(name, None)
        self._updated.pop(name, None)
        if not own:
            self._removed[name] = None
        self._change(undo)

    def clear(self) -> None:
        if not self._items:
            return
        before = self._items, self._added, self._updated, self._removed, self._cleared

        def undo() -> None:
            self._items, self._added, self._updated, self._removed, self._cleared = before
            for name, (_, value) in self._items.items():
                value._owner = (self, name)
        for _, value in self._items.values():
            value._owner = None
        self._items, self._added, self._updated, self._removed, self._cleared = {}, {}, {}, {}, True
        self._change(undo)

    def _child_changed(self, name: Key) -> None:
        if name in self._updated or name in self._added:
            return

        def undo() -> None:
            self._items[name][1]._roll_back()
            self._updated.pop(name, None)
        self._updated[name] = None
        self._change(undo)

    def _own_delta(self) -> Any:
        crdt = protos.crdt
        return crdt.ORMapDelta(
            cleared=self._cleared, removed=[_any(name) for name in self._removed],
            updated=[crdt.ORMapEntryDelta(key=_any(name), delta=self._items[name][1]._delta())
                     for name in self._updated if name not in self._added],
            added=[crdt.ORMapEntryDelta(key=_any(name), delta=self._items[name][1]._whole())
                   for name in self._added])

    def _whole(self) -> Any:
        entry = protos.crdt.ORMapEntryDelta
        return protos.crdt.CrdtDelta(ormap=protos.crdt.ORMapDelta(
            added=[entry(key=_any(name), delta=value._whole()) for name, (_, value) in self._items.items()]))

    def _forget(self) -> None:
        super()._forget()
        for name in [*self._updated, *self._added]:
            self._items[name][1]._forget()
        self._added, self._updated, self._removed, self._cleared = {}, {}, {}, False

    def _apply_own(self, delta: Any) -> None:
        if delta.cleared:
            for _, value in self._items.values():
                value._owner = None
            self._items = {}
        for packed in delta.removed:
            gone = self._items.pop(_key(packed), None)
            if gone is not None:
                gone[1]._owner = None
        for entry in delta.updated:
            self._items[_key(entry.key)][1]._apply(entry.delta)
        for entry in delta.added:
            name, value = _key(entry.key), of_delta(entry.delta)
            value._owner = (self, name)
            self._items[name] = (from_any(entry.key), value)


KINDS: Dict[str, Any] = {kind.name: kind for kind in (GCounter, PNCounter, GSet, ORSet, LWWRegister, Flag, ORMap, Vote)}


def of_delta(delta: Any) -> Any:
    """The CRDT that a whole delta makes."""
    kind = KINDS.get(delta.WhichOneof("delta") or "")
    if kind is None:
        raise EntityError("the proxy sent a delta that is none of the eight CRDTs'")
    value = kind()
    value._apply(delta)
    return value
