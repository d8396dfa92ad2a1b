"""``python -m airflow_provider_aixplain.emulator``"""

from __future__ import annotations

import argparse
import math
import socket
from pathlib import Path

from aiohttp import web

from airflow_provider_aixplain.emulator.agents import AGENTS
from airflow_provider_aixplain.emulator.models import MODELS
from airflow_provider_aixplain.emulator.server import KEEP, KEPT_BYTES, connection_to, create_app


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_aixplain.emulator",
        description=f"Emulates aiXplain's API on this machine, with the models {', '.join(MODELS)} and the agents "
        f"{', '.join(AGENTS)}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    limit = f"{KEPT_BYTES // 1024**2} MiB"
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8088, help="port to listen on, 0 for a free one")
    add("--seconds", type=float, default=5.0, help="duration of a run, in seconds")
    add("--faults", type=float, default=0.0, metavar="RATE", help="share of the polls that get a fault, from 0 to 1")
    add("--folder", type=Path, help="existing folder that keeps runs across restarts; if not given, a temporary one")
    add("--keep", type=int, default=KEEP, help=f"number of runs to keep, with at most {limit} of payloads")
    add("--allowed-host", action="append", default=[], metavar="NAME", help="further host name that requests may use")
    add("--key", help="the only accepted API key; if not given, any key")
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
        print(f"Emulating aiXplain; its models, agents, runs and faults are on the page {url}")
        print(f"export AIRFLOW_CONN_AIXPLAIN_DEFAULT='{connection_to(url, arguments.key)}'", flush=True)
        app = create_app(
            arguments.seconds,
            arguments.faults,
            arguments.folder,
            arguments.key,
            arguments.host,
            arguments.keep,
            arguments.allowed_host,
        )
        web.run_app(app, sock=server, print=None, access_log=None)


if __name__ == "__main__":
    main()
