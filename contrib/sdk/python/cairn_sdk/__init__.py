"""Stateful functions for Cairn, in Python: declare entities and actions, and serve them.

See README.md for whole examples. In short: ``EventSourced``, ``ValueEntity`` and ``Action`` declare,
``@entity.command`` (and, of an event sourced entity, ``@entity.event``, ``@entity.snapshot`` and
``@entity.restore``) say how it behaves, ``serve`` serves it, ``EntityTest``, ``ValueTest`` and ``ActionTest``
try it without a server, ``load`` makes Python classes of a .proto file.
"""

from .action import Action, ActionContext
from .entity import Context, EventSourced
from .errors import CommandFailed, DeclarationError, EntityError
from .protos import INCLUDE, ProtoError, load
from .server import Server, entity_spec, serve
from .testing import ActionTest, EntityTest, Result, ValueTest
from .value import ValueContext, ValueEntity
from .version import VERSION as __version__

__all__ = ["Action", "ActionContext", "ActionTest", "CommandFailed", "Context", "DeclarationError", "EntityError",
           "EntityTest", "EventSourced", "INCLUDE", "ProtoError", "Result", "Server", "ValueContext", "ValueEntity",
           "ValueTest", "entity_spec", "load", "serve", "__version__"]
