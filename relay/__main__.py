"""``speech-relay`` and ``python -m relay``."""

import sys

from relay.errors import RelayError
from relay.private_files import set_umask


def main() -> None:
    """Run the command line. What the operator can act on is one message and exit code 2, never a traceback."""
    set_umask()  # before the first file is created; child processes inherit it

    from relay.cli.app import app
    from relay.cli.terminal import guarded_streams

    with guarded_streams():
        try:
            app(prog_name="speech-relay")
        except RelayError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
