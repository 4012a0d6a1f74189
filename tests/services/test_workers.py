"""What of workers needs no process: the numbers they share, and one that cannot be started."""

import os

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from uppercase.services._base import share
from uppercase.services._board import Board
from uppercase.services._worker import Assignment
from uppercase.services._worker_process import State, Worker


def test_a_worker_waits_for_those_that_have_less_and_for_nobody_else() -> None:
    board = Board.make(3)
    assert not board.has_more(0, 100), "the others do not live yet"
    assert not board.has_more(1, 96)
    assert board.has_more(0, 101)
    assert not board.has_more(2, 98)
    board.clear(1)
    assert not board.has_more(0, 101)
    board.close()


def test_a_board_is_one_memory_for_all_who_have_its_descriptor() -> None:
    board = Board.make(2)
    other = Board(os.dup(board.descriptor), 2)
    assert not other.has_more(1, 7)
    assert board.has_more(0, 12)
    board.close()
    other.close()


def test_shares_are_never_less_than_the_whole() -> None:
    assert [share(1000, 3), share(1, 4), share(8, 4)] == [334, 1, 2]


class Recorder:
    """A superior of one worker."""

    def __init__(self) -> None:
        self.end: Deferred[str] = Deferred()

    def ready(self, worker: Worker, served: list[list[str]]) -> None:
        raise AssertionError("it cannot be")

    def numbers(self, worker: Worker, numbers: object, not_ready: str) -> None:
        raise AssertionError("it cannot be")

    def ended(self, worker: Worker, how: str) -> None:
        self.end.callback(how)


async def test_a_worker_that_cannot_be_started_has_ended() -> None:
    superior, assignment = Recorder(), object.__new__(Assignment)
    worker = Worker(0, superior)
    worker.spawn(reactor, ["/does/not/exist"], os.getcwd(), assignment, 0, [])
    worker.end(b"stop", 1)
    assert "cannot be started: No such file" in await superior.end
    assert worker.state is State.ENDED
