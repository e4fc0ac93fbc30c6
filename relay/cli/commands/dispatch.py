"""``speech-relay dispatch``: delivers what others hear."""

from relay.cli.options import DEFAULT_CONFIG, ConfigOption, LogFormatOption, LogLevelOption
from relay.cli.serving import serve


def command(
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = "auto",
    log_level: LogLevelOption = "info",
) -> None:
    """Deliver until SIGTERM or Ctrl-C; then send what is held and exit 0. Needs no LiveKit server.

    With PostgreSQL, any number of dispatchers share the deliveries. A log in a file has one.
    """
    serve("dispatch", config, log_format, log_level)
