"""Displays the demo: events as they arrive, who is being heard, and the totals."""

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from relay.cli.demo.run import Outcome
from relay.cli.demo.tally import Report
from relay.cli.options import program_name
from relay.cli.output.formatting import plain, write_line
from relay.cli.receiver import Arrival
from relay.events.envelope import StreamEvent
from relay.events.speech import SpeechEnded, SpeechStarted, TranscriptFinal, TranscriptInterim, UtteranceCompleted
from relay.events.stream import StreamEnded
from relay.telemetry.printable import ascii_json

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue")


class Screen:
    """Output for people. Use it as a context manager around the run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._colour: dict[str, str] = {}
        self._status: dict[str, Text] = {}
        self._began_ns: int | None = None
        self._live = Live(console=console, refresh_per_second=12, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def heard(self, speaker: str, *, silent: bool) -> None:
        self._colour.setdefault(speaker, _COLOURS[len(self._colour) % len(_COLOURS)])
        self._show(speaker, Text("– has left", "dim") if silent else Text("○ listening", "dim"))

    def delivered(self, arrival: Arrival, event: StreamEvent) -> None:
        who = event.participant.identity
        match event:
            case TranscriptInterim():
                self._show(who, Text.assemble(("● ", "red"), (plain(event.data.text), "italic dim")))
                return
            case SpeechStarted():
                self._show(who, Text("● speaking", "red"))
            case SpeechEnded():
                self._show(who, Text("○ listening", "dim"))
        self._console.print(self._line(arrival, who, event.type, _detail(event), "green", "✓"))

    def refused(self, arrival: Arrival) -> None:
        event = arrival.event
        detail = Text("answered 503, to show a retry", "yellow")
        self._console.print(self._line(arrival, event["participant"]["identity"], event["type"], detail, "yellow", "↻"))

    def webhook(self, arrival: Arrival) -> None:
        """Show one request in full."""
        shown = ("content-type", "user-agent", "webhook-id", "webhook-timestamp", "webhook-signature")
        headers = "\n".join(f"{name}: {plain(arrival.headers[name])}" for name in (*shown, "relay-previous-sequence"))
        body = Syntax(ascii_json(arrival.event, indent=2), "json", background_color="default")
        self._console.print()
        title = f"one webhook in full: {arrival.event['type']}"
        self._console.print(Panel(Group(Text(headers, "cyan"), Text(), body), title=title))

    def conclude(self, outcome: Outcome) -> None:
        """Show the result of the demo in place of the speakers."""
        self._live.stop()
        if outcome.example is not None:
            self.webhook(outcome.example)
        self.summary(outcome.report)
        self.next_steps()

    def next_steps(self) -> None:
        """The next steps after the demo."""
        program = program_name()
        steps = Table.grid(padding=(0, 2))
        steps.add_column(no_wrap=True)  # commands are copied from here
        for command, what in (
            ("init --url https://your.app/hooks", "writes config.yaml and .env, and says what to set"),
            ("check", "tries what they name"),
            ("run", "listens to the rooms of your LiveKit server"),
        ):
            steps.add_row(Text(f"{program} {command}"), Text(what, "dim"))
        self._console.print("\nNext, with your own rooms:")
        self._console.print(steps)

    def summary(self, report: Report) -> None:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        latency = "–" if report.p50_ms is None else f"p50 {report.p50_ms} ms, p95 {report.p95_ms} ms"
        signatures = "all verified" if not report.unverified else f"{report.unverified} did NOT verify"
        for name, value in (
            (
                "heard",
                f"{report.streams} streams, {report.starts} starts and {report.ends} ends, {report.finals} finals",
            ),
            ("paired", "every start with its end" if not report.unpaired else f"{report.unpaired} NOT paired"),
            ("delivered", f"{report.delivered} events in {report.requests} requests, {report.retries} after a retry"),
            ("signatures", f"{signatures}, by the standardwebhooks library"),
            ("order", "kept" if not report.out_of_order else f"{report.out_of_order} out of order"),
            ("missing", "nothing" if not report.missing else f"{report.missing} events"),
            ("added latency", f"{latency} from append to arrival"),
        ):
            table.add_row(name, value)
        colour = "red" if report.faults else "green"
        self._console.print(Panel(table, title="summary", border_style=colour))
        for fault in report.faults:
            self._console.print(Text(f"✗ {fault}", "bold red"))

    def _line(
        self, arrival: Arrival, who: str, event_type: str, detail: Text, colour: str, mark: str
    ) -> RenderableType:
        self._began_ns = self._began_ns or arrival.received_ns
        line = Table.grid(padding=(0, 1))
        for width in (8, 14, 1, 21):
            line.add_column(width=width, no_wrap=True)
        line.add_column()
        seconds = (arrival.received_ns - self._began_ns) / 1e9
        line.add_row(
            Text(f"{seconds:7.2f}s", "dim"),
            Text(plain(who), self._colour.get(who, "white")),
            Text(mark, colour),
            Text(plain(event_type), "bold" if event_type == "transcript.final" else ""),
            detail,
        )
        return line

    def _show(self, speaker: str, status: Text) -> None:
        self._status[speaker] = status
        table = Table.grid(padding=(0, 1))
        for who, what in self._status.items():
            table.add_row(Text(f"  {plain(who)}", f"bold {self._colour[who]}"), what)
        self._live.update(Panel(table, title="being heard", border_style="dim"))


class JsonLines:
    """Output for programs: each event as delivered, then ``{"summary": …}``, one JSON per line."""

    def heard(self, speaker: str, *, silent: bool) -> None:
        pass

    def delivered(self, arrival: Arrival, event: StreamEvent) -> None:
        write_line(arrival.event)

    def refused(self, arrival: Arrival) -> None:
        pass

    def summary(self, report: Report) -> None:
        write_line({"summary": report.as_json()})


def _completed(event: UtteranceCompleted) -> str:
    """Not every recognizer returns single words, so the text is compared."""
    data = event.data
    what = f"{len(data.text.split())} words: “{data.text}”" if data.text else data.outcome
    return what if data.duration_ms is None else f"{data.duration_ms / 1000:.1f} s, {what}"


def _detail(event: StreamEvent) -> Text:
    match event:
        case TranscriptFinal():
            return Text(f"“{plain(event.data.text)}”", "bold")
        case SpeechEnded():
            return Text(f"{event.data.reason}, {event.data.duration_ms} ms", "dim")
        case UtteranceCompleted():
            return Text(_completed(event), "dim")
        case StreamEnded():
            return Text(f"{event.data.reason}, {event.data.utterances} utterances", "dim")
    return Text()
