"""Stateful functions for Cairn, in Python: declare an event sourced entity, and serve it.

See README.md for a whole example. In short: ``EventSourced`` declares, ``@entity.command``,
``@entity.event``, ``@entity.snapshot`` and ``@entity.restore`` say how it behaves, ``serve`` serves it,
``EntityTest`` tries it without a server, ``load`` makes Python classes of a .proto file.
"""

from .entity import Context, EventSourced
from .errors import CommandFailed, DeclarationError, EntityError
from .protos import INCLUDE, ProtoError, load
from .server import Server, entity_spec, serve
from .testing import EntityTest, Result
from .version import VERSION as __version__

__all__ = ["CommandFailed", "Context", "DeclarationError", "EntityError", "EntityTest", "EventSourced",
           "INCLUDE", "ProtoError", "Result", "Server", "entity_spec", "load", "serve", "__version__"]
