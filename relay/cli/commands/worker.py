"""``speech-relay worker``: listens to rooms; others deliver."""

from relay.cli.options import DEFAULT_CONFIG, ConfigOption, LogFormatOption, LogLevelOption
from relay.cli.serving import serve


def command(
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = "auto",
    log_level: LogLevelOption = "info",
) -> None:
    """Listen until SIGTERM or Ctrl-C; then end streams and exit 0. Events go into the log, from where
    `speech-relay dispatch` sends them.

    Any number of workers share the rooms. When one dies, another hears its rooms within seconds.
    """
    serve("worker", config, log_format, log_level)
