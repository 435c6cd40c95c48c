"""Tables with two seats each: who sits where, for how long a seat is kept, and the games that are played."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from fastapi_consumers import ConsumerError

from .rules import MARKS, Game, Mark


class SeatView(BaseModel):
    """A seat as both players see it."""

    mark: Mark
    name: str
    is_here: bool
    wins: int
    wants_rematch: bool


class TableView(BaseModel):
    """All that there is to see: it is sent after each change, so that nobody has to put it together."""

    board: list[Mark | None]
    turn: Mark | None
    winner: Mark | None
    line: list[int]
    seats: list[SeatView]
    draws: int


@dataclass
class Seat:
    """A player's place. Whoever has the token may come back to it, from whichever connection."""

    table: "Table"
    mark: Mark
    name: str
    token: str = field(default_factory=secrets.token_urlsafe)
    #: The connection that sits here; ``None`` while the player is away.
    channel: str | None = None
    left: asyncio.Event = field(default_factory=asyncio.Event)
    wins: int = 0
    wants_rematch: bool = False
    timer: asyncio.TimerHandle | None = None

    @property
    def id(self) -> str:
        """What tells players apart, for whoever asks the framework."""
        return f"{self.table.name}.{self.mark}"


class Table:
    """Two seats and a game."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seats: dict[Mark, Seat] = {}
        self.game = Game()
        self.draws = 0

    def play(self, seat: Seat, square: int) -> None:
        if len(self.seats) < 2:
            raise ConsumerError("no_opponent", "There is nobody to play with yet.")
        self.game.play(seat.mark, square)
        if self.game.winner is not None:
            seat.wins += 1
        elif self.game.turn is None:
            self.draws += 1

    def ask_rematch(self, seat: Seat) -> None:
        """A new game begins once both have asked. Whoever was second begins it."""
        if self.game.turn is not None:
            raise ConsumerError("game_running", "This game is not over yet.")
        if len(self.seats) < 2:
            raise ConsumerError("no_opponent", "There is nobody to play with yet.")
        seat.wants_rematch = True
        if all(each.wants_rematch for each in self.seats.values()):
            self.game = Game("O" if self.game.first == "X" else "X")
            self._forget_wishes()

    def start_over(self) -> None:
        """Somebody has left for good: whoever comes next plays from the beginning."""
        self.game, self.draws = Game(), 0
        for seat in self.seats.values():
            seat.wins = 0
        self._forget_wishes()

    def _forget_wishes(self) -> None:
        for seat in self.seats.values():
            seat.wants_rematch = False

    def view(self) -> TableView:
        seats = [
            SeatView(
                mark=mark,
                name=seat.name,
                is_here=seat.channel is not None,
                wins=seat.wins,
                wants_rematch=seat.wants_rematch,
            )
            for mark, seat in sorted(self.seats.items(), reverse=True)
        ]
        game = self.game
        return TableView(
            board=game.board, turn=game.turn, winner=game.winner, line=list(game.line), seats=seats, draws=self.draws
        )


class Tables:
    """All tables of this process. One that nobody sits at is forgotten."""

    def __init__(self, grace: float, on_given_up: Callable[[Table], Any]) -> None:
        """
        Args:
            grace: seconds for which the seat of a player whose connection was lost is kept.
            on_given_up: called when a seat was kept for so long in vain.
        """
        self.grace = grace
        self._on_given_up = on_given_up
        self._tables: dict[str, Table] = {}
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._tables)

    def find(self, name: str, token: str) -> Seat | None:
        """Whose token this is."""
        table = self._tables.get(name)
        seats = table.seats.values() if table is not None else ()
        return next((seat for seat in seats if secrets.compare_digest(seat.token.encode(), token.encode())), None)

    def sit(self, name: str, player: str, channel: str, seat: Seat | None) -> Seat:
        """Take a seat, or one's own again. Raises ``ConsumerError`` if both are taken, or kept for others."""
        if seat is None:
            table = self._tables.setdefault(name, Table(name))
            mark = next((mark for mark in MARKS if mark not in table.seats), None)
            if mark is None:
                raise ConsumerError("table_taken", "Two are playing here already.", close_code=1013)
            seat = table.seats[mark] = Seat(table, mark, player)
        elif seat.table.seats.get(seat.mark) is not seat:
            raise ConsumerError("seat_lost", "Your seat was given up.", close_code=4401)
        if seat.timer is not None:
            seat.timer.cancel()
            seat.timer = None
        seat.channel = channel
        seat.left.clear()
        return seat

    def stand_up(self, seat: Seat) -> None:
        """The connection has ended. The seat is kept for a while."""
        seat.channel = None
        seat.left.set()
        if not self._is_closed:
            seat.timer = asyncio.get_running_loop().call_later(self.grace, self._give_up, seat)

    def leave(self, seat: Seat) -> None:
        """The player has left for good."""
        if seat.timer is not None:
            seat.timer.cancel()
        seat.channel = None
        seat.left.set()
        table = seat.table
        table.seats.pop(seat.mark, None)
        table.start_over()
        if not table.seats:
            self._tables.pop(table.name, None)

    def close(self) -> None:
        """The app ends: nobody waits any more."""
        self._is_closed = True
        for table in self._tables.values():
            for seat in table.seats.values():
                if seat.timer is not None:
                    seat.timer.cancel()

    def _give_up(self, seat: Seat) -> None:
        self.leave(seat)
        self._on_given_up(seat.table)
