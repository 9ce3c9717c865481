"""Stateful functions for Cairn, in Python: declare entities and actions, and serve them.

See README.md for whole examples. In short: ``EventSourced``, ``ValueEntity``, ``Crdt`` and ``Action`` declare,
``@entity.command`` (and, of an event sourced entity, ``@entity.event``, ``@entity.snapshot`` and
``@entity.restore``) say how it behaves, ``serve`` serves it, ``EntityTest``, ``ValueTest``, ``CrdtTest`` and
``ActionTest`` try it without a server, ``load`` makes Python classes of a .proto file.
"""

from .action import Action, ActionContext
from .crdt import ALL, LOCAL, MAJORITY, Crdt, CrdtContext, StreamContext
from .crdts import (CUSTOM, CUSTOM_AUTO_INCREMENT, DEFAULT, REVERSE, Flag, GCounter, GSet, LWWRegister, ORMap, ORSet,
                    PNCounter, Vote)
from .entity import Context, EventSourced
from .errors import CommandFailed, DeclarationError, EntityError
from .protos import INCLUDE, ProtoError, load
from .server import Server, entity_spec, serve
from .testing import ActionTest, CrdtTest, EntityTest, OpenStream, Result, ValueTest
from .value import ValueContext, ValueEntity
from .version import VERSION as __version__

__all__ = ["ALL", "Action", "ActionContext", "ActionTest", "CUSTOM", "CUSTOM_AUTO_INCREMENT", "CommandFailed",
           "Context", "Crdt", "CrdtContext", "CrdtTest", "DEFAULT", "DeclarationError", "EntityError",
           "EntityTest", "EventSourced", "Flag", "GCounter", "GSet", "INCLUDE", "LOCAL", "LWWRegister", "MAJORITY",
           "ORMap", "ORSet", "OpenStream", "PNCounter", "ProtoError", "REVERSE", "Result", "Server",
           "StreamContext", "ValueContext", "ValueEntity", "ValueTest", "Vote", "entity_spec", "load", "serve",
           "__version__"]
