"""Which actions there are, for completion: from whoever knows, and whichever the server has answered for.

The protocol itself tells nobody what may be called. So a source is asked: today the application's own code, with
``--app``. Another one needs to be nothing but an ``ActionSource``.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from starlette.routing import compile_path

from ...actions import Action
from ..applications import actions_of, consumers_of, load_app, schema_of

#: What may be typed besides actions, and what it does.
COMMANDS = {
    "/help": "what can be typed here",
    "/actions": "the actions that are known",
    "/reconnect": "close the socket and open it again",
    "/quit": "close the socket and leave, as Ctrl-D does",
}


class ActionInfo(NamedTuple):
    """One action, as far as a person who types needs to know it: the first line of what it says of itself."""

    name: str
    fields: tuple[str, ...] = ()
    description: str = ""

    def __str__(self) -> str:
        taken = "".join(f" {field}=…" for field in self.fields)
        return f"{self.name}{taken}" + (f"  {self.description}" if self.description else "")


class ActionSource(Protocol):
    """Whoever knows the actions of an endpoint."""

    async def actions(self) -> Sequence[ActionInfo]:
        """All of them. May raise ``click.ClickException``, which ends the program before it connects."""
        ...


class AppActions:
    """The actions of the application that ``MODULE:APP`` names, at the path of a URL.

    Where no route of it answers that path, as behind a proxy that changes it, those of all its consumers.
    """

    def __init__(self, text: str, path: str, *, factory: bool = False) -> None:
        self._text = text
        self._path = path
        self._factory = factory

    async def actions(self) -> Sequence[ActionInfo]:
        app = load_app(self._text, factory=self._factory)
        routes = consumers_of(app, self._text)
        here = [route for route in routes if compile_path(route.path)[0].match(self._path)]
        found: dict[str, ActionInfo] = {}
        for route in here[:1] or routes:
            for name, action in actions_of(app, route.consumer_class).items():
                found.setdefault(name, _info(name, action))
        return list(found.values())


def _info(name: str, action: Action) -> ActionInfo:
    schema = schema_of(action)
    lines = action.description.splitlines()
    return ActionInfo(name, tuple(_properties(schema, schema)), lines[0] if lines else "")


def _properties(schema: Any, root: Any, depth: int = 0) -> Iterable[str]:
    """The names of an object's properties in JSON Schema, those of all members of a union."""
    if not isinstance(schema, dict) or depth > 8:
        return ()
    reference = schema.get("$ref", "")
    if reference.startswith("#/$defs/"):
        return _properties(root.get("$defs", {}).get(reference.removeprefix("#/$defs/")), root, depth + 1)
    found = dict.fromkeys(schema.get("properties", ()))
    for kind in ("anyOf", "oneOf", "allOf"):
        for member in schema.get(kind, ()):
            found.update(dict.fromkeys(_properties(member, root, depth + 1)))
    return found


class Suggestion(NamedTuple):
    """``text`` in place of the last ``replaces`` characters, and what it means."""

    text: str
    replaces: int
    meaning: str


class Catalog:
    """The actions that are known. ``learned`` grows while the program runs: names that the server answered for."""

    def __init__(self, actions: Iterable[ActionInfo] = (), learned: Collection[str] = ()) -> None:
        self._actions = {action.name: action for action in actions}
        self._learned = learned

    def all(self) -> list[ActionInfo]:
        """By name."""
        learned = {name: ActionInfo(name) for name in self._learned}
        return [action for _, action in sorted({**learned, **self._actions}.items())]

    def suggest(self, text: str) -> list[Suggestion]:
        """What may stand next in a line that has this before the cursor."""
        text = text.lstrip()
        name, space, rest = text.partition(" ")
        if not space:
            if text.startswith("/"):
                return [Suggestion(name, len(text), said) for name, said in COMMANDS.items() if name.startswith(text)]
            return [
                Suggestion(action.name + " " * bool(action.fields), len(text), action.description)
                for action in self.all()
                if action.name.startswith(text)
            ]
        action = self._actions.get(name)
        if action is None or rest.lstrip().startswith(("{", "[", '"')):
            return []
        before, _, word = rest.rpartition(" ")
        if before.count('"') % 2:
            return []  # Inside of a text.
        used = {pair.partition("=")[0] for pair in before.split()}
        return [
            Suggestion(f"{field}=", len(word), "")
            for field in action.fields
            if field not in used and f"{field}=".startswith(word)
        ]
