"""Thousands of listeners in one thread: an epoll loop that receives and accounts for frames, and keeps no audio.

It does not use the `websockets` library: that client took 18 to 38 µs of CPU for a frame of 640 bytes. This loop takes
8 µs, mostly in the kernel, and 2 µs when frames arrive joined (Python 3.11, a virtual CPU of an AMD EPYC, 300 to 4000
listeners at 50 frames/s). A relay spends 4 to 12 µs on a frame, so a generator with the library on the same machine
would measure itself.

Invariants: nothing blocks; each planned visit ends once, as a failure to join or as a closed connection.
"""

import itertools
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT

from relay.loadtest.account import LEFT, NORMAL_CLOSE, STILL_OPEN, Counts, Report, encoded_frames
from relay.loadtest.frame_reader import (
    Closing,
    FrameReader,
    Greeting,
    Happening,
    PingFrame,
    ToldGap,
)
from relay.loadtest.histogram import Histogram
from relay.loadtest.listener_socket import ListenerSocket
from relay.loadtest.machine import cpu_seconds, waiting_seconds
from relay.loadtest.plan import Visit, WorkerPlan
from relay.loadtest.poll_loop import Events, PollLoop
from relay.loadtest.relay_clock import RelayClock
from relay.loadtest.target import JoinError, check_codec
from relay.protocol.messages import ErrorNotice, Hello, Ping, Pong
from relay.protocol.wire import WORD_MASK
from relay.vocabulary.clock import Clock, relay_clock
from relay.vocabulary.errors import CloseCode, PolicyError
from relay.vocabulary.text import printable

JOIN_SECONDS = 10.0
"""How long a listener may take to join."""

LEAVE_SECONDS = 2.0
"""How long a closing handshake may take."""

PING_SECONDS = 0.05
"""How often the receiver asks for the relay's clock."""

SWEEP_SECONDS = 0.05
"""How often, at the end, the receiver checks which listeners have everything."""

MAX_QUESTIONS = 64
"""How many unanswered questions are remembered. An answer to an older one would say little."""

_LOST = "1006 (no close frame)"


class ClockQuestions:
    """Asks relays for their clocks through one listener after another, so that none asks often. A greeting answers too.

    Connections to one address may lead to several relays. `clock_id` in the greetings says which share a clock.
    """

    def __init__(self) -> None:
        # By id. Relays that do not say one are taken for one relay.
        self._clocks: dict[str | None, RelayClock] = {}
        self._ids = itertools.count()
        self._asked_ms: dict[int, float] = {}
        self._askers: deque[ListenerSocket] = deque()

    def ask(self, connections: Iterable[ListenerSocket], now_ms: float) -> None:
        """Ask through the next connection that can."""
        if not self._askers:
            self._askers.extend(connections)
        while self._askers:
            asker = self._askers.popleft()
            if _can_ask(asker):
                self._ask(asker, now_ms)
                return

    def _ask(self, asker: ListenerSocket, now_ms: float) -> None:
        if len(self._asked_ms) >= MAX_QUESTIONS:
            del self._asked_ms[next(iter(self._asked_ms))]
        ping_id = next(self._ids)
        self._asked_ms[ping_id] = now_ms
        asker.send_text(Ping({"id": ping_id}).text())

    @property
    def uncertainty_ms(self) -> float | None:
        """How far off the worst known of the clocks may be; None while none is known."""
        return max((clock.uncertainty_ms for clock in self._clocks.values()), default=None)

    def greet(self, connection: ListenerSocket, hello: Hello, now_ms: float) -> None:
        """Find out which clock a relay has, and narrow it down by the greeting."""
        connection.clock = self._clocks.setdefault(hello.clock_id, RelayClock())
        connection.clock.note(connection.began * 1000, now_ms, hello.clock_ms)

    def answer(self, connection: ListenerSocket, pong: Pong, now_ms: float) -> None:
        """Narrow a clock down by an answer."""
        asked_ms = self._asked_ms.pop(pong.ping_id, None)
        if asked_ms is not None:
            connection.clock.note(asked_ms, now_ms, pong.clock_ms)


def _can_ask(connection: ListenerSocket) -> bool:
    is_open = connection.joined and connection.outcome is None
    return is_open and connection.reading and not connection.expect.is_stamped


class Receiver:
    """The listeners of one process. Everything but `run` returns at once."""

    def __init__(self, plan: WorkerPlan, clock: Clock = relay_clock) -> None:
        """Prepare to follow `plan`; `clock` returns seconds."""
        self._plan = plan
        self._clock = clock
        self._loop = PollLoop(clock, plan.nap_seconds)
        with_tls = any(target.tls_name is not None for target in plan.targets)
        self._tls = ssl.create_default_context() if with_tls else None
        self._connections: dict[int, ListenerSocket] = {}
        self._reader = FrameReader()
        self._questions = ClockQuestions()
        self._counts = Counts()
        self._connecting = 0
        self._waiting: deque[tuple[Visit, float | None]] = deque(
            (visit, None) for visit in plan.visits if visit.join_at is None
        )
        self._began: float | None = None
        self._published: list[int] | None = None
        self._finishing = False
        self._loop.after(0.0, self._join_more)
        self._loop.after(0.0, self._ask_clock)
        self._loop.after(plan.join_limit_seconds, self._give_up_joining)

    def watch(self, fileno: int, readable: Callable[[], None]) -> None:
        """Call `readable` from `run` whenever that file can be read."""
        self._loop.watch(fileno, readable)

    def run(self) -> None:
        """Serve until `stop` is called, or until nothing is left to wait for after `finish`."""
        self._loop.run(self._serve)

    def stop(self) -> None:
        """Make `run` return."""
        self._loop.running = False

    def start(self, at_seconds: float) -> None:
        """Follow the rest of the plan. The audio begins at `at_seconds`."""
        self._began = at_seconds
        for visit in self._plan.visits:
            if visit.join_at is not None:
                due = at_seconds + visit.join_at
                self._loop.at(due, partial(self._arrive, visit, due))
        for connection in self._connections.values():
            self._plan_leaving(connection)

    def settle(self, published: list[int]) -> None:
        """Record how many frames each target's channel got. After this its listeners may be closed."""
        self._published = published

    def finish(self, wait_seconds: float) -> None:
        """Make every listener read, and `run` return when all owed frames arrived or after `wait_seconds`."""
        self._finishing = True
        self._waiting.clear()
        for connection in list(self._connections.values()):
            if not connection.joined:
                self._end(connection, "the test was over")
            elif not connection.reading:
                connection.reading = True
                self._update(connection)
        self._loop.after(wait_seconds, self._end_all)
        self._end_complete()
        if not self._connections:
            self.stop()

    def report(self) -> Report:
        """Return what happened since the last report."""
        latency, self._reader.latency = self._reader.latency, Histogram()
        return replace(
            self._counts.report(),
            joining=len(self._waiting) + self._connecting,
            connected=len(self._connections) - self._connecting,
            latency=latency,
            lag_ms=self._loop.take_lag_ms(),
            cpu_seconds=cpu_seconds(),
            waiting_seconds=waiting_seconds(),
            clock_uncertainty_ms=self._questions.uncertainty_ms,
        )

    def close(self) -> None:
        """Close every socket at once."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._loop.close()

    def _serve(self, events: Events) -> None:
        """Receive from every socket that is ready. The generator's performance depends on this loop."""
        connections, clock = self._connections, self._clock
        buffer, view, take = self._reader.buffer, self._reader.view, self._reader.take
        received_bytes = 0
        for fileno, mask in events:
            connection = connections.get(fileno)
            if connection is None or mask != EPOLLIN or not connection.streaming:
                self._handle(fileno, connection, mask)
                continue
            stream = connection.stream
            rest = stream.rest
            try:
                if rest:
                    start = len(rest)
                    buffer[:start] = rest
                    length = connection.receive_into(view[start:])
                else:
                    start = 0
                    length = connection.receive_into(buffer)
                if length:
                    received_bytes += length
                    now_ms = int(clock() * 1000.0 + connection.clock.offset_ms) & WORD_MASK
                    happenings = take(stream, start + length, now_ms)
                    if happenings:
                        self._digest(connection, happenings)
                else:
                    self._end(connection, _LOST)
            except BlockingIOError:
                continue
            except OSError:
                self._end(connection, _LOST)
            except (JoinError, PolicyError) as error:
                self._end(connection, printable(str(error)))
        self._counts.received_bytes += received_bytes

    def _handle(self, fileno: int, connection: ListenerSocket | None, mask: int) -> None:
        """Handle everything beyond plain receiving."""
        if connection is None:
            self._loop.call_watcher(fileno)
            return
        if not connection.upgraded:
            self._advance(connection)
        elif not connection.reading and mask & (EPOLLERR | EPOLLHUP):
            self._end(connection, _LOST)
        else:
            self._exchange(connection, mask)
        self._update(connection)

    def _exchange(self, connection: ListenerSocket, mask: int) -> None:
        try:
            if mask & EPOLLOUT:
                connection.flush()
            if connection.reading and mask & ~EPOLLOUT:
                self._receive(connection)
        except OSError:
            self._end(connection, _LOST)
        except (JoinError, PolicyError) as error:
            self._end(connection, printable(str(error)))

    def _receive(self, connection: ListenerSocket) -> None:
        """Receive everything available. TLS returns it record by record."""
        reader, stream = self._reader, connection.stream
        while True:
            start = len(stream.rest)
            reader.buffer[:start] = stream.rest
            try:
                received = connection.receive_into(reader.view[start:])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not received:
                self._end(connection, _LOST)
                return
            if connection.visit.reads:
                self._counts.received_bytes += received
            self._digest(connection, self._take(connection, start + received))
            if not connection.reading or not self._is_open(connection):
                return

    def _take(self, connection: ListenerSocket, length: int) -> Sequence[Happening]:
        now_ms = int(self._clock() * 1000.0 + connection.clock.offset_ms) & WORD_MASK
        return self._reader.take(connection.stream, length, now_ms)

    def _digest(self, connection: ListenerSocket, happenings: Sequence[Happening]) -> None:
        """React to happenings, and take what followed a greeting, now that the relay's clock is known."""
        self._react(connection, happenings)
        while happenings and isinstance(happenings[-1], Greeting):
            rest = connection.stream.rest
            self._reader.buffer[: len(rest)] = rest
            happenings = self._take(connection, len(rest))
            self._react(connection, happenings)

    def _join_more(self) -> None:
        while self._waiting and self._connecting < self._plan.joining_at_once:
            visit, due = self._waiting.popleft()
            began = self._clock() if due is None else due
            try:
                connection = ListenerSocket(visit, self._plan.targets[visit.target], began)
            except JoinError as error:
                self._counts.failed(str(error))
                continue
            self._connecting += 1
            self._connections[connection.fileno] = connection
            connection.registered = connection.interest
            self._loop.add(connection.fileno, connection.registered)
            self._loop.after(JOIN_SECONDS, partial(self._give_up, connection))

    def _arrive(self, visit: Visit, due: float) -> None:
        """Queue a visit from after the beginning. The time that it waits for its turn counts as joining."""
        if not self._finishing:
            self._waiting.append((visit, due))
            self._join_more()

    def _give_up(self, connection: ListenerSocket) -> None:
        if not connection.joined:
            self._end(connection, f"no greeting within {JOIN_SECONDS:g} s")

    def _give_up_joining(self) -> None:
        for visit, _due in self._waiting:
            if visit.join_at is None:
                self._counts.failed(f"not reached within {self._plan.join_limit_seconds:g} s")
        self._waiting = deque(item for item in self._waiting if item[0].join_at is not None)

    def _advance(self, connection: ListenerSocket) -> None:
        try:
            rest = connection.advance(self._tls)
            if rest is None:
                return
            if not connection.expect.is_relay_v1:
                self._joined(connection)
            self._reader.buffer[: len(rest)] = rest
            self._digest(connection, self._take(connection, len(rest)))
        except (JoinError, PolicyError) as error:
            self._end(connection, printable(str(error)))

    def _joined(self, connection: ListenerSocket) -> None:
        connection.joined = True
        now = self._clock()
        self._connecting -= 1
        self._counts.joins.record(round((now - connection.began) * 1000))
        if not connection.visit.reads:
            connection.reading = False
            self._update(connection)
        self._plan_leaving(connection)
        self._join_more()

    def _react(self, connection: ListenerSocket, happenings: Sequence[Happening]) -> None:
        for happening in happenings:
            match happening:
                case Greeting(hello=hello) if not connection.joined:
                    check_codec(self._plan.targets[connection.visit.target], hello.audio_format)
                    if not connection.expect.is_stamped:
                        self._questions.greet(connection, hello, self._clock() * 1000)
                    self._joined(connection)
                case Pong():
                    self._questions.answer(connection, happening, self._clock() * 1000)
                case PingFrame(payload=payload):
                    connection.send_pong(payload)
                case ToldGap(frames=frames):
                    if connection.visit.reads:
                        self._counts.gap_frames += frames
                case Closing():
                    self._note_close(connection, happening)
                case ErrorNotice(message=message):
                    connection.trouble = message

    def _note_close(self, connection: ListenerSocket, closing: Closing) -> None:
        """Answer a close frame. The server then has a little time to close the socket."""
        how = NORMAL_CLOSE if closing.code == CloseCode.SESSION_ENDED else f"{closing.code} {closing.reason}".rstrip()
        if connection.outcome is None:
            connection.outcome = printable(how)
        if not connection.joined:
            self._end(connection, printable(connection.trouble or how))
            return
        connection.send_close(CloseCode.SESSION_ENDED)
        self._loop.after(LEAVE_SECONDS, partial(self._end, connection, _LOST))

    def _plan_leaving(self, connection: ListenerSocket) -> None:
        leave_at = connection.visit.leave_at
        if leave_at is not None and self._began is not None and connection.joined:
            self._loop.at(self._began + leave_at, partial(self._leave, connection))

    def _leave(self, connection: ListenerSocket) -> None:
        """Leave as a browser does when its page is closed."""
        if not self._is_open(connection):
            return
        connection.outcome = connection.outcome or LEFT
        connection.send_close(CloseCode.GOING_AWAY)
        self._update(connection)
        # A stream has no closing handshake to wait for.
        self._loop.after(LEAVE_SECONDS if connection.expect.is_websocket else 0, partial(self._end, connection, LEFT))

    def _end(self, connection: ListenerSocket, how: str) -> None:
        """Close the socket and count how the connection ended. Do nothing if that already happened."""
        if not self._is_open(connection):
            return
        del self._connections[connection.fileno]
        connection.close()
        if connection.joined:
            visit = connection.visit
            connection.outcome = connection.outcome or how
            self._counts.closed(visit, connection.stream.account, connection.outcome, self._published_to(connection))
        else:
            self._connecting -= 1
            self._counts.failed(how)
            self._join_more()
        if self._finishing and not self._connections:
            self.stop()

    def _published_to(self, connection: ListenerSocket) -> int | None:
        """Return how many frames the connection's channel got in all; None if that is not known yet."""
        if self._published is None:
            return None
        published, frame_ticks = self._published[connection.visit.target], connection.stream.frame_ticks
        if self._plan.encoded_frame_ms is None or not frame_ticks:
            return published
        return encoded_frames(published * self._plan.encoded_frame_ms, frame_ticks)

    def _end_all(self) -> None:
        for connection in list(self._connections.values()):
            self._end(connection, STILL_OPEN)

    def _end_complete(self) -> None:
        """End the connections that have all owed frames, where the server does not close them."""
        if self._published is not None:
            for connection in list(self._connections.values()):
                is_complete = connection.stream.account.owed(self._published_to(connection) or 0) == 0
                if not connection.expect.is_relay_v1 and is_complete:
                    self._end(connection, LEFT)
        self._loop.after(SWEEP_SECONDS, self._end_complete)

    def _ask_clock(self) -> None:
        self._questions.ask(self._connections.values(), self._clock() * 1000)
        self._loop.after(PING_SECONDS, self._ask_clock)

    def _is_open(self, connection: ListenerSocket) -> bool:
        return self._connections.get(connection.fileno) is connection

    def _update(self, connection: ListenerSocket) -> None:
        """Make epoll wait for the connection's current interest."""
        interest = connection.interest
        if interest != connection.registered and self._is_open(connection):
            connection.registered = interest
            self._loop.change(connection.fileno, interest)
