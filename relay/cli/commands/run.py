"""``speech-relay run``: listens to rooms and delivers the events."""

from relay.cli.options import DEFAULT_CONFIG, ConfigOption, LogFormatOption, LogLevelOption
from relay.cli.serving import serve


def command(
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = "auto",
    log_level: LogLevelOption = "info",
) -> None:
    """Run until SIGTERM or Ctrl-C; then end streams, send what is left and exit 0. A second Ctrl-C ends it at once,
    and so does either while it still starts: exit code 143 or 130.

    Endpoints follow the configuration file when it changes, and at SIGHUP.
    """
    serve("run", config, log_format, log_level)
