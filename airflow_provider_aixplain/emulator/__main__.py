"""``python -m airflow_provider_aixplain.emulator``"""

from __future__ import annotations

import argparse
import math
import socket
from pathlib import Path

from aiohttp import web

from airflow_provider_aixplain.emulator.models import MODELS
from airflow_provider_aixplain.emulator.server import KEEP, KEPT_BYTES, connection_to, create_app


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_aixplain.emulator",
        description=f"Emulates aiXplain's Model API on this machine, with the models {', '.join(MODELS)}.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8088, help="port to listen on, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="how long a run takes, in seconds (default: %(default)s)"
    )
    parser.add_argument(
        "--faults",
        type=float,
        default=0.0,
        metavar="RATE",
        help="share of the polls that get a fault, from 0 to 1: errors, resets, hangs, garbage, redirects"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--folder", type=Path, help="existing folder in which runs are kept across restarts (default: temporary)"
    )
    parser.add_argument(
        "--keep",
        type=int,
        default=KEEP,
        help=f"number of runs to keep; beyond that, or beyond {KEPT_BYTES // 1024**2} MiB, the oldest finished runs are"
        " deleted (default: %(default)s)",
    )
    parser.add_argument("--key", help="the only API key that it accepts (default: any)")
    arguments = parser.parse_args()
    if not 0 <= arguments.seconds < math.inf:
        parser.error("--seconds must be 0 or more")
    if arguments.keep < 1:
        parser.error("--keep must be 1 or more")
    if not 0 <= arguments.faults <= 1:
        parser.error("--faults must be from 0 to 1")
    if arguments.folder and not arguments.folder.is_dir():
        parser.error(f"--folder: {arguments.folder} does not exist")
    try:
        server = socket.create_server((arguments.host, arguments.port))
    except (OSError, OverflowError) as error:
        parser.error(f"cannot listen on {arguments.host} port {arguments.port}: {error}; choose another with --port")
    with server:
        url = f"http://{arguments.host}:{server.getsockname()[1]}"
        print(f"Emulating aiXplain at {url}. To use it from Airflow:")
        print(f"export AIRFLOW_CONN_AIXPLAIN_DEFAULT='{connection_to(url, arguments.key)}'", flush=True)
        app = create_app(
            arguments.seconds, arguments.faults, arguments.folder, arguments.key, arguments.host, arguments.keep
        )
        web.run_app(app, sock=server, print=None, access_log=None)


if __name__ == "__main__":
    main()
