"""What stands for a language model: it answers from some notes, word by word, always the same, without a network."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from operator import itemgetter

NOTES = (
    "A consumer is a class for one conversation over a WebSocket. Its methods that are marked with @action are what"
    " a client may call.",
    "An action's signature is its schema: the payload is validated by pydantic before the method is called, and "
    "what does not fit is answered with invalid_data and a list of the mistakes.",
    "An action that is an async generator streams its answer. Each part that it yields is a reply with the status "
    "partial, and a last one with the status ok says that it is complete.",
    "A client ends a request with the action cancel and the request_id that it gave it. The action is cancelled "
    "where it stands, its finally runs, and the request is answered with the error cancelled.",
    "Actions of one connection run one after another, so that their answers come in order. With concurrent=True an "
    "action runs beside the others, up to max_concurrent_actions of them.",
    "A group is a named set of connections. What is broadcast to a group is serialised once and reaches all of its "
    "members, in one and the same order.",
    "With a history a group keeps its newest events. A client that lost its connection comes back with its epoch "
    "and offset, and is sent exactly what it missed.",
    "Presence tells who is in a group. Several windows of one user are one entry, and a process that dies is "
    "noticed by its lease.",
    "A slow client costs nobody but itself: what waits for it is bounded, and overflow says whether it is "
    "disconnected, loses the oldest or the newest events, or keeps one for each coalesce_key.",
    "Dependencies are FastAPI's own Depends. They are opened for each call of an action and closed before its "
    "answer is sent.",
    "Throttles limit how often something may be asked. Whoever asks too often is told retry_after, the seconds to "
    "wait.",
    "Permissions are asked before each action, and combined with and, or and not. A refusal is answered with "
    "permission_denied and leaves the socket open.",
    "In tests the WebsocketCommunicator speaks to an application in the same process, without a server, a port or a"
    " thread.",
)
NOTHING = "That is not in my notes. Ask me about consumers, actions, streaming, groups, history, presence or tests."


#: Words that say nothing about what is meant.
COMMON = frozenset(
    re.findall(
        r"\w+",
        """and are before but can does for from gave happens has have how into is its may mean meaning not one other
        others over same that the then there they this very was what when where whether which who why will with
        you your""",
    )
)


class Model:
    """Answers with the notes that share most with the question, counting rare words for more.

    Args:
        pause: seconds before each word, as if it had to be thought of.
    """

    def __init__(self, pause: float = 0.06, notes: Iterable[str] = NOTES) -> None:
        self._pause = pause
        self._notes = [(note, _stems(note)) for note in notes]
        self._count = Counter(stem for _, stems in self._notes for stem in stems)
        #: Answers that are being given.
        self.busy = 0

    async def answer(self, question: str) -> AsyncGenerator[str, None]:
        """Words, each with the space that follows it. Whoever stops listening early closes the generator."""
        self.busy += 1
        try:
            for word in re.findall(r"\S+\s*", self.find(question)):
                await asyncio.sleep(self._pause)
                yield word
        finally:
            # However it ends: here a real one would stop generating, and say what was used.
            self.busy -= 1

    def find(self, question: str) -> str:
        """The whole answer."""
        asked = _stems(question)
        scored = [(sum(1 / self._count[stem] for stem in asked & stems), note) for note, stems in self._notes]
        best = max(score for score, _ in scored)
        if best == 0:
            return NOTHING
        scored.sort(key=itemgetter(0), reverse=True)
        return "\n\n".join(note for score, note in scored[:3] if score >= best / 2)


def _stems(text: str) -> set[str]:
    """Beginnings of words, so that "groups" is found by "group"."""
    return {word.rstrip("s")[:5] for word in re.findall(r"\w{3,}", text.lower()) if word not in COMMON}
