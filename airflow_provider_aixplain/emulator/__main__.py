"""``python -m airflow_provider_aixplain.emulator``"""

from __future__ import annotations

import argparse
import json
import math
import socket

from aiohttp import web

from airflow_provider_aixplain.emulator.models import MODELS
from airflow_provider_aixplain.emulator.server import create_app


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
    arguments = parser.parse_args()
    if not 0 <= arguments.seconds < math.inf:
        parser.error("--seconds takes 0 or more")
    try:
        server = socket.create_server((arguments.host, arguments.port))
    except (OSError, OverflowError) as error:
        parser.error(f"cannot listen on {arguments.host} port {arguments.port}: {error}; choose another with --port")
    with server:
        url = f"http://{arguments.host}:{server.getsockname()[1]}"
        connection = {"conn_type": "aixplain", "host": url, "password": "emulator"}
        print(f"Emulating aiXplain at {url}. To use it from Airflow:")
        print(f"export AIRFLOW_CONN_AIXPLAIN_DEFAULT='{json.dumps(connection)}'", flush=True)
        web.run_app(create_app(arguments.seconds), sock=server, print=None, access_log=None)


if __name__ == "__main__":
    main()
