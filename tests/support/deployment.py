"""A real Airflow on this machine: its processes and its REST API, for tests, demo and benchmarks."""

from __future__ import annotations

import html
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pendulum
import psutil
import requests
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_fixed

from airflow_provider_aixplain import compat
from airflow_provider_aixplain.emulator.server import connection_to

AIRFLOW_3 = compat.is_at_least(3, 0)
AIRFLOW_3_1 = compat.is_at_least(3, 1)
AIRFLOW_3_3 = compat.is_at_least(3, 3)
COMPONENTS = (
    {name: (name,) for name in ("scheduler", "dag-processor", "triggerer", "api-server")}
    if AIRFLOW_3
    else {"scheduler": ("scheduler",), "triggerer": ("triggerer",), "api-server": ("webserver",)}
)
CELERY_WORKER = ("celery", "worker", "--skip-serve-logs", "--without-mingle", "--without-gossip")
SQLITE_TIMEOUT = "timeout=60"
API_SERVER_SQLITE_TIMEOUT = "timeout=2"
"""The first to give up if SQLite is locked.

The API server of Airflow 3.3.2 writes its audit log in its event loop. If a request in a thread holds the lock then, it
can commit only after the event loop has given up: until then every component waits, and a scheduler that gives up ends.
"""
BIN = Path(sys.executable).parent
FINISHED = ("success", "failed")
RUN_SECONDS = 5
"""Longer than a loop of a busy scheduler: Airflow 3.3.2 fails a task that resumes before that loop ends."""


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 120, every: float = 0.25) -> Any:
    """Return the first true value of a condition.

    :param what: the condition in words, for the error.
    :raises TimeoutError: if the condition stays false for this time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(every)
    raise TimeoutError(f"{what}: not within {seconds:g} s")


def _status(error: BaseException) -> int:
    """Return the HTTP status of an error; 0 if it has none."""
    return error.response.status_code if isinstance(error, requests.HTTPError) else 0


def copy_dags(folder: Path, *sources: Path) -> Path:
    """Copy folders of DAGs into one, with what this version of Airflow needs changed, as in docs/versions.md."""
    for source in sources:
        shutil.copytree(source, folder, dirs_exist_ok=True)
    if not AIRFLOW_3_1:
        (folder / "example_aixplain_approval.py").unlink()
    for path in () if AIRFLOW_3 else folder.glob("*.py"):
        code = path.read_text(encoding="utf-8").replace(
            "airflow.sdk import", "airflow.providers.common.compat.sdk import"
        )
        path.write_text(code, encoding="utf-8")
    return folder


class Processes:
    """Processes that are stopped together, each with its output in a log file.

    :param home: folder of the log files; its contents are deleted first.
    """

    def __init__(self, home: Path) -> None:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        self.home = home
        # PATH, as the virtual environment may not be activated; NO_PROXY, as calls to this machine need no proxy.
        path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
        # Neither settings of another Airflow nor a key are inherited. Without bytecode each task process would compile
        # this package, which takes longer than its imports; an installed package has bytecode.
        foreign = ("AIRFLOW_", "AIXPLAIN_", "PYTHONDONTWRITEBYTECODE")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.env = {**inherited, "PATH": path, "NO_PROXY": "127.0.0.1,localhost"}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._cleanups: list[Callable[[], None]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            for cleanup in self._cleanups:
                cleanup()

    def add_cleanup(self, cleanup: Callable[[], None]) -> None:
        """Call a function after all processes have ended."""
        self._cleanups.append(cleanup)

    def start(
        self,
        name: str,
        *command: str,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        """Start a process in its own session, so that a Ctrl-C does not reach it.

        :param user: the user to run it as; default: the current one.
        :param env: environment variables in addition to those of all processes.
        :param cwd: its working directory; default: the current one.
        """
        with open(self.log_path(name), "ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
                cwd=cwd,
            )

    def run(self, name: str, *command: str) -> None:
        """Run a command until it ends.

        :raises RuntimeError: if it fails; the message has the end of its output.
        """
        self.start(name, *command)
        if self.running.pop(name).wait():
            raise RuntimeError(f"{' '.join(command)} failed:\n{self.log_path(name).read_text()[-3000:]}")

    def check(self, *names: str) -> None:
        """Check that processes are running.

        :param names: default: all.
        :raises RuntimeError: if one has ended; the message has the end of its output.
        """
        for name, process in self.running.items():
            if name in (names or self.running) and process.poll() is not None:
                raise RuntimeError(f"{name} has ended:\n{self.log_path(name).read_text()[-3000:]}")

    def signal(self, number: int, name: str) -> None:
        """Send a signal to a process and its descendants."""
        for process in _members([self.running[name].pid]):
            with suppress(psutil.Error):
                process.send_signal(number)

    def kill(self, name: str) -> None:
        """Kill a process and its descendants, as a power failure would."""
        self.signal(signal.SIGKILL, name)
        self.running.pop(name).wait()

    def stop(self, *names: str) -> None:
        """Stop processes and their descendants; default: all."""
        stopping = [self.running.pop(name) for name in names or list(self.running)]
        end_sessions([process.pid for process in stopping])
        for process in stopping:
            process.wait()

    def cpu_seconds(self) -> float:
        """Return the CPU time of all processes and their descendants, also of those that have ended."""
        seconds = 0.0
        for process in _members([process.pid for process in self.running.values()]):
            with suppress(psutil.Error):
                seconds += sum(process.cpu_times()[:4])  # user, system, and those of children that have ended
        return seconds

    def log_path(self, name: str) -> Path:
        return self.home / f"{name}.log"


def end_sessions(leaders: list[int], seconds: float = 10) -> None:
    """Terminate the leaders of sessions, then kill what is left of the sessions.

    A session identifies the descendants of a process even if its parent has died and it has changed its name, as
    Airflow's processes do.
    """
    for leader in leaders:
        with suppress(psutil.Error):
            psutil.Process(leader).terminate()
    _, alive = psutil.wait_procs(_members(leaders), timeout=seconds)
    for process in [*alive, *_members(leaders)]:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=10)


def _members(leaders: list[int]) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) in leaders:
                members.append(process)
    return members


class Emulator:
    """The provider's emulator as a process.

    :param processes: the deployment that it belongs to.
    :param seconds: duration of its runs.
    :param extra: the extra of the Connection to it.
    :param key: the only key that it accepts; default: any.
    """

    def __init__(
        self, processes: Processes, seconds: float, extra: Mapping[str, Any] | None = None, key: str | None = None
    ) -> None:
        self.processes = processes
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        (processes.home / "platform").mkdir()
        arguments = {"port": port, "seconds": seconds, "folder": processes.home / "platform", "keep": 1_000_000}
        if key:
            arguments["key"] = key
        self._command = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
        self.start()
        self.connection = connection_to(self.url, key or f"key-{secrets.token_hex(8)}", **(extra or {}))

    def start(self) -> None:
        """Start it, with the runs from before it was stopped."""
        self.processes.start("emulator", sys.executable, "-m", "airflow_provider_aixplain.emulator", *self._command)
        faults = f"{self.url}/emulator/faults"
        wait_until(lambda: self.processes.check("emulator") or _reachable(faults), "the emulator", 30)

    def set_faults(self, **faults: Any) -> dict[str, int]:
        """Replace the faults; return how many polls got each kind of fault so far.

        :param faults: the arguments of the emulator's ``Faults``; default: no faults.
        """
        counts: dict[str, int] = requests.get(f"{self.url}/emulator/faults", timeout=10).json()["counts"]
        requests.put(f"{self.url}/emulator/faults", json=faults, timeout=10).raise_for_status()
        return counts

    def runs(self) -> list[dict[str, Any]]:
        """Return all runs, each with its payload and the times of its polls."""
        return list(requests.get(f"{self.url}/emulator/runs", timeout=10).json())


class Airflow:
    """A real Airflow: scheduler with worker processes, triggerer, web server and, in Airflow 3, DAG processor.

    :param processes: the deployment that it belongs to, whose folder becomes ``AIRFLOW_HOME``.
    :param dags: folder of the DAGs.
    :param connections: Connections by id, as JSON or URI, set in the environment.
    :param slots: number of tasks that run at a time. On SQLite, Airflow 2.11 runs one.
    :param settings: further settings, as ``section__name``.
    :param components: its components, names in :data:`COMPONENTS`.
    """

    def __init__(
        self,
        processes: Processes,
        dags: Path,
        connections: Mapping[str, str],
        slots: int = 4,
        settings: Mapping[str, Any] | None = None,
        components: Sequence[str] = tuple(COMPONENTS),
    ) -> None:
        self.processes = processes
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.components = components
        self._token: str | None = None
        settings = {
            "core__dags_folder": dags,
            "core__executor": "LocalExecutor",
            "core__execution_api_server_url": f"{self.url}/execution/",
            "core__load_examples": False,
            # On SQLite Airflow 2 runs one task at a time, each after an idle time of the scheduler.
            "core__parallelism": slots if AIRFLOW_3 else 1,
            "scheduler__scheduler_idle_sleep_time": 1 if AIRFLOW_3 else 0.25,
            "core__max_active_tasks_per_dag": 1000,
            "core__dags_are_paused_at_creation": False,
            "core__simple_auth_manager_all_admins": True,
            "database__sql_alchemy_conn": f"sqlite:///{processes.home}/airflow.db?{SQLITE_TIMEOUT}",
            "api__host": "127.0.0.1",
            "api__port": self.port,
            "api__base_url": self.url,
            "api__auth_backends": "airflow.api.auth.backend.basic_auth",
            "api_auth__jwt_secret": secrets.token_urlsafe(32),
            "dag_processor__refresh_interval": 5,
            "logging__json_logs": True,
            "logging__worker_log_server_port": free_port(),
            "logging__trigger_log_server_port": free_port(),
            # DAG files do not change, so parsing them again wastes CPU, unless the first time has failed.
            f"{'dag_processor' if AIRFLOW_3 else 'scheduler'}__min_file_process_interval": 60,
            "usage_data_collection__enabled": False,
            "webserver__base_url": self.url,
            "webserver__web_server_host": "127.0.0.1",
            "webserver__workers": 1,
            # On a busy machine Airflow 2 may miscount gunicorn's workers, and then stops the web server after this
            # timeout; 0 disables that.
            "webserver__web_server_master_timeout": 0,
            # If a task's sockets close before its process exits, the supervisor of Airflow 3.3.2 checks again only
            # after this time, by default 5 s, in which the slot is idle.
            "workers__min_heartbeat_interval": 1,
            **(settings or {}),
        }
        processes.env |= {
            "AIRFLOW_HOME": str(processes.home),
            # Permits the LocalExecutor with SQLite in Airflow 2: it forks, while the SequentialExecutor starts a new
            # interpreter for each task, which takes seconds.
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
            **{f"AIRFLOW__{name.upper()}": str(value) for name, value in settings.items()},
            **{f"AIRFLOW_CONN_{conn_id.upper()}": value for conn_id, value in connections.items()},
        }

    def start(self, *, without: tuple[str, ...] = ()) -> None:
        """Create the database and start the components."""
        airflow = str(BIN / "airflow")
        self.processes.run("db", airflow, "db", "migrate")
        if not AIRFLOW_3:
            user = "--username admin --password admin --firstname a --lastname b --role Admin --email a@example.com"
            self.processes.run("users", airflow, "users", "create", *user.split())
        for name in self.components:
            if name not in without:
                self.start_component(name)
        wait_until(lambda: self.processes.check() or self.healthy(without), "Airflow", 180)

    def start_component(self, name: str) -> None:
        """Start a component; a suffix after a colon distinguishes several of a kind, as in ``triggerer:2``."""
        kind = name.partition(":")[0]
        arguments = list(CELERY_WORKER if kind == "worker" else COMPONENTS[kind])
        if arguments == ["webserver"]:
            arguments += ["--port", str(self.port)]
        # Several of a kind need different ports for their logs.
        ports = ("WORKER_LOG_SERVER_PORT", "TRIGGER_LOG_SERVER_PORT") if ":" in name else ()
        env = {f"AIRFLOW__LOGGING__{port}": str(free_port()) for port in ports}
        if kind == "api-server":
            database = self.processes.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
            env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = database.replace(SQLITE_TIMEOUT, API_SERVER_SQLITE_TIMEOUT)
        self.processes.start(name, str(BIN / "airflow"), *arguments, env=env)

    def restart_ended(self) -> list[str]:
        """Restart components that have ended, as a service manager does, and return their names."""
        running = self.processes.running
        ended = [name for name in self.components if name in running and running[name].poll() is not None]
        for name in ended:
            self.processes.stop(name)  # its descendants
            self.start_component(name)
        return ended

    def healthy(self, without: tuple[str, ...] = ()) -> bool:
        """Whether scheduler, triggerer and DAG processor have reported to the API server."""
        path = "/api/v2/monitor/health" if AIRFLOW_3 else "/health"
        with suppress(requests.RequestException, ValueError):
            health = requests.get(f"{self.url}{path}", timeout=5).json()
            wanted = {"scheduler", "triggerer", *(["dag_processor"] if AIRFLOW_3 else [])}
            return all(
                health.get(name, {}).get("status") == "healthy"
                for name in wanted - {component.replace("-", "_") for component in without}
            )
        return False

    @retry(
        retry=retry_if_exception(
            lambda error: isinstance(error, requests.HTTPError) and error.response.status_code >= 500
        ),
        wait=wait_fixed(1),
        stop=stop_after_attempt(10),
        reraise=True,
    )
    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """Call the REST API. On a busy machine SQLite may be locked, so a call that fails is repeated.

        :param path: path after the version, such as ``/dags``.
        :raises requests.HTTPError: for an error status.
        """
        headers = {**kwargs.pop("headers", {}), **self._headers}
        url = f"{self.url}/api/{'v2' if AIRFLOW_3 else 'v1'}{path}"
        auth = None if AIRFLOW_3 else ("admin", "admin")
        response = requests.request(method, url, timeout=60, headers=headers, auth=auth, **kwargs)
        response.raise_for_status()
        return response.json() if response.content else None

    def usage(self, **query: Any) -> dict[str, Any]:
        """Return the data of the page aiXplain once all days are counted."""

        def read() -> dict[str, Any]:
            answer = requests.get(f"{self.url}/aixplain/api/usage", query, headers=self._headers, timeout=60)
            answer.raise_for_status()
            return dict(answer.json())

        return wait_until(lambda: (answer := read())["is_complete"] and answer, "the page to count all days")

    def connection_form(self) -> str:
        """Return the text of which the UI makes the form of a Connection."""
        if AIRFLOW_3:
            return requests.get(f"{self.url}/ui/connections/hook_meta", headers=self._headers, timeout=60).text
        with requests.Session() as session:
            login = session.get(f"{self.url}/login/", timeout=30).text
            (token,) = set(re.findall(r'name="csrf_token"[^>]*value="([^"]+)"', login))
            credentials = {"username": "admin", "password": "admin", "csrf_token": token}
            session.post(f"{self.url}/login/", data=credentials, timeout=30)
            return html.unescape(session.get(f"{self.url}/connection/add", timeout=60).text)

    @property
    def _headers(self) -> dict[str, str]:
        if AIRFLOW_3 and self._token is None:
            self._token = requests.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
        return {"Authorization": f"Bearer {self._token}"} if AIRFLOW_3 else {}

    def has_dag(self, dag_id: str) -> bool:
        """Whether the DAG has been parsed.

        :raises RuntimeError: if a DAG file cannot be imported.
        """
        if errors := self.call("GET", "/importErrors")["import_errors"]:
            raise RuntimeError(errors)
        with suppress(requests.HTTPError):
            return bool(self.call("GET", f"/dags/{dag_id}"))
        return False

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run of a DAG as soon as the DAG has been parsed, and return its id."""
        wait_until(lambda: self.has_dag(dag_id), f"DAG {dag_id}")
        # With an id of its own the run can be started again after an error.
        body: dict[str, Any] = {"conf": dict(conf or {}), "dag_run_id": f"test_{secrets.token_hex(6)}"}
        if AIRFLOW_3:
            body["logical_date"] = None

        try:
            self.call("POST", f"/dags/{dag_id}/dagRuns", json=body)
        except requests.HTTPError as error:
            if _status(error) != requests.codes.conflict:  # that of a call that was repeated although it had succeeded
                raise
        return str(body["dag_run_id"])

    def state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a DAG run."""
        return str(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def wall_seconds(self, dag_id: str, run_id: str) -> float:
        """Return the duration of a finished DAG run."""
        dag_run = self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
        start, end = (pendulum.parse(dag_run[name]) for name in ("start_date", "end_date"))
        return float((end - start).total_seconds())

    def finish(self, dag_id: str, run_id: str, seconds: float = 300) -> str:
        """Wait until a DAG run has finished, and return its state.

        :raises RuntimeError: if a component ends before, as nothing would restart it.
        """

        def final_state() -> str | None:
            self.processes.check()
            state = self.state(dag_id, run_id)
            return state if state in FINISHED else None

        return str(wait_until(final_state, f"{dag_id} to finish", seconds, every=0.5))

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a DAG run, mapped ones by index."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        tasks: list[dict[str, Any]] = []
        while len(tasks) % 100 == 0:  # the size of a full page
            page = self.call("GET", path, params={"limit": 100, "offset": len(tasks)})["task_instances"]
            if not page:
                break
            tasks += page
        return sorted(tasks, key=lambda ti: (ti["task_id"], ti["map_index"]))

    def xcoms(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, keys: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Return XComs of a task instance by key; default: all except those of links and of the usage record."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries"
        index = {"map_index": map_index}
        if keys is None:
            entries = self.call("GET", path, params={**index, "limit": 100})["xcom_entries"]
            keys = [key for entry in entries if not (key := entry["key"]).startswith(("_link_", "aixplain_usage"))]
        deserialize = {} if AIRFLOW_3 else {"stringify": False}
        return {
            key: self.call("GET", f"{path}/{key}", params={**index, **deserialize})["value"]
            for key in sorted(set(keys))
        }

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of a task instance, with a line for each event and each of its exceptions."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        params = {"map_index": map_index, "full_content": True}
        content = self.call("GET", path, params=params, headers={"Accept": "application/json"})["content"]
        if not AIRFLOW_3:
            return str(content).replace("\\n", "\n")
        lines = []
        for entry in content:
            lines.append(f"{entry.get('timestamp', '')} {entry.get('level', '')} {entry['event']}")
            lines += [f"  {error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or []]
        task = {"run_id": run_id, "task_id": task_id, "try_number": try_number, "map_index": map_index}
        return "\n".join([*lines, *self._lines_of_triggerers(task)])

    def _lines_of_triggerers(self, task: Mapping[str, Any]) -> Iterator[str]:
        """Yield the lines of a task instance that are in the logs of triggerers instead of its own.

        If a trigger finishes, the triggerer of Airflow 3.3.2 may close its log before it has received the last lines.
        """
        for name in self.components:
            path = self.processes.log_path(name)
            for line in path.read_text().splitlines() if name.startswith("triggerer") and path.exists() else ():
                if task["run_id"] in line and line.startswith("{"):
                    event = json.loads(line)
                    if all(event.get(key) == value for key, value in task.items()):
                        yield f"{event['timestamp']} {event['level']} {event['event']}"

    def worker_seconds(self) -> dict[str, float]:
        """Return how long each task instance occupied a worker slot, by its id, as measured by its supervisors.

        The supervisor logs it shortly after its task has finished, so this method waits for the log lines.
        """
        wait_until(self._workers_are_idle, "the workers' log lines", 30)
        seconds: dict[str, float] = {}
        for event in self.scheduler_events():
            if event.get("event") == "Workload finished":
                workload = event["workload_id"]
                seconds[workload] = seconds.get(workload, 0.0) + float(event["duration"])
        return seconds

    def _workers_are_idle(self) -> bool:
        count = Counter(event.get("event") for event in self.scheduler_events())
        return count["Worker startup parse complete"] <= count["Workload finished"]

    def scheduler_events(self) -> Iterator[dict[str, Any]]:
        """Return the log lines of the scheduler and its worker processes."""
        for line in self.processes.log_path("scheduler").read_text(errors="replace").splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event


def _reachable(url: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(url, timeout=5).ok
    return False
