"""What can go wrong, by whose fault it is."""

from __future__ import annotations


class DeclarationError(Exception):
    """The entity is declared wrongly; raised before anything is served. Says where and what to do."""


class CommandFailed(Exception):
    """A command is refused. Raised by ``context.fail``; the client gets the text and nothing is kept."""

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.description = description


class EntityError(Exception):
    """A handler is at fault, or the proxy does not keep to the protocol: the entity's stream is given up,
    and its state is built again from its events. `command_id` is 0 if no command was being handled."""

    def __init__(self, text: str, command_id: int = 0) -> None:
        super().__init__(text)
        self.command_id = command_id
