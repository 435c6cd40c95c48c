"""The rules of noughts and crosses: no sockets, no time, no names."""

from collections.abc import Sequence
from typing import Literal

from fastapi_consumers import ConsumerError

Mark = Literal["X", "O"]

MARKS: tuple[Mark, Mark] = ("X", "O")
LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))


def other(mark: Mark) -> Mark:
    return "O" if mark == "X" else "X"


class Game:
    """One game, from an empty board to its end. ``turn`` is ``None`` when it is over."""

    def __init__(self, first: Mark = "X") -> None:
        self.board: list[Mark | None] = [None] * 9
        self.first: Mark = first
        self.turn: Mark | None = first
        self.winner: Mark | None = None
        #: The squares that won, if somebody has.
        self.line: Sequence[int] = ()

    def play(self, mark: Mark, square: int) -> None:
        """Put a mark on a square, 0 to 8. Raises ``ConsumerError`` for a move that the rules forbid."""
        if self.turn is None:
            raise ConsumerError("game_over", "This game is over.")
        if mark != self.turn:
            raise ConsumerError("not_your_turn", "It is not your turn.")
        if self.board[square] is not None:
            raise ConsumerError("square_taken", "This square is taken.")
        self.board[square] = mark
        self.line = next((line for line in LINES if all(self.board[each] == mark for each in line)), ())
        if self.line:
            self.winner = mark
        self.turn = None if self.line or None not in self.board else other(mark)
