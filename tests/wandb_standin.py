"""A stand-in for a W&B server, in memory, on 127.0.0.1: enough for the real ``wandb sweep``, ``wandb agent``,
``wandb.init``, ``wandb sync`` and ``wandb.Api``.

It is modelled on the protocol that wandb 0.31 speaks and on the open sweep engine (grid only); W&B's own service was
not observed. GraphQL operations are told apart by name, and nearly whole objects are answered: clients ignore most of
what they didn't ask for. It knows nothing of what this project puts into its runs.
"""

import base64
import contextlib
import gzip
import itertools
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

ENTITY = "tester"
"""The only user, who has one team of the same name."""
KEY = "0123456789abcdef" * 2 + "01234567"
"""The only API key that is accepted."""

Variables = Mapping[str, Any]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _identifier(kind: str, name: str) -> str:
    return base64.b64encode(f"{kind}:{name}".encode()).decode()


def _connection(nodes: Sequence[tuple[str, Mapping[str, Any]]], more: bool = False) -> dict[str, Any]:
    """A page of a GraphQL list, from (cursor, node)."""
    return {
        "edges": [{"cursor": cursor, "node": node} for cursor, node in nodes],
        "pageInfo": {"endCursor": nodes[-1][0] if nodes else None, "hasNextPage": more},
    }


def grid(parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All points of a flat grid, in the order of W&B's engine: sorted keys, the last one fastest."""
    names = sorted(parameters)
    values = [parameters[name].get("values", [parameters[name].get("value")]) for name in names]
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]


def _asked_for(answer: Any, query: str) -> Any:
    """An answer without the large fields of runs that a query doesn't name: clients read what is there."""
    if isinstance(answer, list):
        return [_asked_for(item, query) for item in answer]
    if isinstance(answer, dict):
        left_out = [key for key in ("config", "summaryMetrics", "systemMetrics") if key not in query]
        return {key: _asked_for(value, query) for key, value in answer.items() if key not in left_out}
    return answer


@dataclass
class Run:
    """A run on the server.

    Attributes:
        name: what W&B calls a run's id.
        state: ``pending`` (given to an agent), ``running``, ``preempting``, ``preempted``, ``finished``, ``failed``
            or ``crashed``.
        config: as stored: ``{key: {"value": ...}}``.
        files: uploaded ones, by name.
        heard: when its process last said something, by the monotonic clock.
    """

    entity: str
    project: str
    name: str
    display_name: str
    state: str = "running"
    sweep: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    output: dict[int, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    group: str | None = None
    job_type: str | None = None
    host: str | None = None
    commit: str | None = None
    exit_code: int | None = None
    stopped: bool = False
    created: str = field(default_factory=_now)
    heard: float = field(default_factory=time.monotonic)

    def values(self) -> dict[str, Any]:
        """The configuration, plain."""
        return {key: item["value"] for key, item in self.config.items() if key != "_wandb"}

    def node(self) -> dict[str, Any]:
        last = json.dumps([json.dumps(self.history[-1])] if self.history else [])
        return {
            "id": _identifier("Run", f"{self.entity}:{self.project}:{self.name}"), "name": self.name,
            "displayName": self.display_name, "projectId": "1", "sweepName": self.sweep, "state": self.state,
            "config": json.dumps(self.config), "summaryMetrics": json.dumps(self.summary), "systemMetrics": "{}",
            "group": self.group, "jobType": self.job_type, "tags": self.tags, "commit": self.commit, "host": self.host,
            "readOnly": False, "createdAt": self.created, "heartbeatAt": self.created, "description": None,
            "notes": None, "exitcode": self.exit_code, "user": {"name": ENTITY, "username": ENTITY},
            "historyLineCount": len(self.history), "logLineCount": len(self.output), "eventsLineCount": 0,
            "historyTail": last, "eventsTail": "[]", "wandbConfig": json.dumps({"t": 1}),
            "historyKeys": {"lastStep": self.history[-1].get("_step", -1) if self.history else -1, "keys": {}},
            "sampledHistory": [self.history], "shouldStop": self.stopped, "stopped": self.stopped,
            "failed": self.state == "failed", "running": self.state == "running", "files": _connection([]),
            "project": {"id": "1", "name": self.project, "internalId": "1", "entity": {"name": self.entity}},
        }  # fmt: skip


@dataclass
class Sweep:
    """A sweep on the server: `queue` are the points that no agent was given yet, `asked` its YAML as sent."""

    entity: str
    project: str
    name: str
    asked: str
    state: str = "PENDING"
    created: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        self.config: dict[str, Any] = yaml.safe_load(self.asked)
        self.queue = grid(self.config["parameters"])
        self.size = len(self.queue)

    def node(self, runs: Sequence[Run]) -> dict[str, Any]:
        return {
            "id": _identifier("Sweep", self.name), "name": self.name, "displayName": self.config.get("name"),
            "method": self.config["method"], "state": self.state, "description": self.config.get("description"),
            "config": self.asked, "createdAt": self.created, "heartbeatAt": self.created, "updatedAt": self.created,
            "earlyStopJobRunning": False, "bestLoss": None, "controller": None, "scheduler": None,
            "runCount": len(runs), "runCountExpected": min(self.size, self.config.get("run_cap", self.size)),
            "runs": _connection([(run.name, run.node()) for run in runs]),
            "project": {"id": "1", "name": self.project, "entity": {"name": self.entity}},
        }  # fmt: skip


class State:
    """What the server knows, and how it answers; not safe for threads by itself.

    Attributes:
        runs, sweeps: by their ids, oldest first. Ids are unique over all projects.
        agents: the sweep of each agent.
        crash_after: seconds of silence after which a running run is called ``crashed``. A process at work is heard
            of every 15 to 30 seconds. A crashed point of a grid is not given out again; a process that comes back
            makes its run ``running`` again.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, str] = {}
        self.views: list[dict[str, Any]] = []  # reports, as they came
        self.crash_after = 300.0
        self._numbers = itertools.count(1)
        self.operations: dict[str, Callable[[Variables], dict[str, Any]]] = {
            "Viewer": self._viewer,
            "GetDefaultEntity": self._viewer,
            "OrganizationCoreWeaveOrganizationID": lambda v: {"entity": {"organization": None}},
            "UpsertSweep": self._upsert_sweep,
            "SweepWithRuns": self._sweep,
            "GetSweep": self._sweep,
            "CreateAgent": self._create_agent,
            "Heartbeat": self._heartbeat,
            "RunResumeStatus": self._resume_status,
            "RunStoppedStatus": self._run,
            "UpsertBucket": self._upsert_run,
            "CreateRunFiles": self._create_files,
            "Runs": self._runs,
            "Run": self._run,
            "Projects": self._list_projects,
            "GetProjects": self._list_projects,
            "ProjectInternalId": lambda v: {"project": {"internalId": _identifier("ProjectInternalId", "1")}},
            "upsertView": self._upsert_view,
        }

    def sweep_runs(self, sweep: str) -> list[Run]:
        """The runs of a sweep, oldest first."""
        return [run for run in self.runs.values() if run.sweep == sweep]

    def call_crashed(self) -> None:
        """Give up on running runs that were silent for too long."""
        for run in self.runs.values():
            if run.state in ("running", "preempting") and time.monotonic() - run.heard > self.crash_after:
                run.state = "crashed"

    def _name(self, kind: str) -> str:
        return f"{kind}{next(self._numbers):05d}"

    def _new_run(self, entity: str, project: str, name: str) -> Run:
        return self.runs.setdefault(name, Run(entity, project, name, display_name=f"misty-moon-{len(self.runs) + 1}"))

    # ------------------------------------------------------------------------------------ people and projects

    def _viewer(self, variables: Variables) -> dict[str, Any]:
        return {
            "viewer": {
                "id": _identifier("User", ENTITY), "entity": ENTITY, "username": ENTITY, "name": ENTITY,
                "email": "tester@localhost", "admin": False, "flags": "{}", "deletedAt": None,
                "teams": _connection([(ENTITY, {"name": ENTITY})]), "apiKeys": _connection([]),
            }
        }  # fmt: skip

    def _projects(self) -> set[tuple[str, str]]:
        runs = {(run.entity, run.project) for run in self.runs.values()}
        return runs | {(sweep.entity, sweep.project) for sweep in self.sweeps.values()}

    def _list_projects(self, variables: Variables) -> dict[str, Any]:
        more = {"createdAt": _now(), "isBenchmark": False, "user": None}
        found = [
            (name, {"id": _identifier("Project", name), "name": name, "entityName": entity, **more})
            for entity, name in sorted(self._projects())
        ]
        return {"models": _connection(found)}

    # ------------------------------------------------------------------------------------------------ reports

    def _upsert_view(self, variables: Variables) -> dict[str, Any]:
        """Keep a report."""
        number = _identifier("View", str(len(self.views)))
        project = {"id": variables["projectName"], "name": variables["projectName"], "entityName": ENTITY}
        self.views.append(dict(variables))
        kept = {key: variables[key] for key in ("type", "name", "displayName", "description", "spec")}
        view = {**kept, "id": number, "project": project, "createdAt": _now(), "updatedAt": _now()}
        return {"upsertView": {"view": view, "inserted": True}}

    # ------------------------------------------------------------------------------------------------- sweeps

    def _upsert_sweep(self, variables: Variables) -> dict[str, Any]:
        """Make a sweep, or set the state of one (pause, resume, stop, cancel)."""
        if variables.get("id"):
            sweep = next(s for s in self.sweeps.values() if _identifier("Sweep", s.name) == variables["id"])
            sweep.state = variables.get("state") or sweep.state
        else:
            place = variables.get("entityName") or ENTITY, variables.get("projectName") or "uncategorized"
            sweep = Sweep(*place, self._name("sweep"), variables["config"])
            self.sweeps[sweep.name] = sweep
        node = sweep.node(self.sweep_runs(sweep.name))
        return {"upsertSweep": {"sweep": node, "configValidationWarnings": []}}

    def _sweep(self, variables: Variables) -> dict[str, Any]:
        place = variables.get("entity") or ENTITY, variables.get("project")
        sweep = self.sweeps.get(variables.get("sweep") or variables["name"])
        if place not in self._projects():
            return {"project": None}
        if sweep is None or (sweep.entity, sweep.project) != place:
            return {"project": {"sweep": None}}
        return {"project": {"sweep": sweep.node(self.sweep_runs(sweep.name))}}

    def _create_agent(self, variables: Variables) -> dict[str, Any]:
        sweep, name = self.sweeps[variables["sweep"]], self._name("agent")
        if sweep.state == "PENDING":
            sweep.state = "RUNNING"
        self.agents[name] = sweep.name
        return {"createAgent": {"agent": {"id": name, "name": name}}}

    def _heartbeat(self, variables: Variables) -> dict[str, Any]:
        """What an agent is to do: it tells of its running runs, or has none and asks for one."""
        sweep = self.sweeps[self.agents[variables["id"]]]
        at_work: list[str] = list(json.loads(variables.get("runState") or "{}"))
        if at_work:
            stopped = [name for name in at_work if sweep.state == "CANCELED" or self.runs[name].stopped]
            commands: list[dict[str, Any]] = [{"type": "stop", "run_id": name} for name in stopped]
        else:
            commands = self._next_command(sweep)
        return {"agentHeartbeat": {"agent": {"id": variables["id"]}, "commands": json.dumps(commands)}}

    def _next_command(self, sweep: Sweep) -> list[dict[str, Any]]:
        """A preempted run again, under its own id, else the next point of the grid, else the end."""
        if sweep.state in ("FINISHED", "CANCELED"):
            return [{"type": "exit"}]
        if sweep.state == "PAUSED":
            return []
        runs = self.sweep_runs(sweep.name)
        preempted = next((run for run in runs if run.state == "preempted"), None)
        if preempted is not None:
            preempted.state, preempted.heard = "running", time.monotonic()
            return [self._command("resume", preempted)]
        if sweep.queue and len(runs) < sweep.config.get("run_cap", sweep.size):
            run = self._new_run(sweep.entity, sweep.project, self._name("run"))
            run.sweep, run.state = sweep.name, "pending"
            run.config = {key: {"value": value} for key, value in sweep.queue.pop(0).items()}
            return [self._command("run", run)]
        if all(run.state != "running" for run in runs):
            sweep.state = "FINISHED"
        return [{"type": "exit"}]

    def _command(self, kind: str, run: Run) -> dict[str, Any]:
        assert run.sweep is not None
        sweep = self.sweeps[run.sweep]
        return {
            "id": self._name("command"), "type": kind, "run_id": run.name,
            "run_storage_id": run.node()["id"], "program": sweep.config.get("program", ""),
            "args": {key: run.config[key] for key in sweep.config["parameters"]},
        }  # fmt: skip

    # --------------------------------------------------------------------------------------------------- runs

    def _upsert_run(self, variables: Variables) -> dict[str, Any]:
        """Make a run, change one, or take up one that had ended."""
        name = variables["name"]
        inserted = name not in self.runs
        run = self._new_run(variables.get("entity") or ENTITY, variables.get("project") or "uncategorized", name)
        run.heard = time.monotonic()
        run.sweep = variables.get("sweep") or run.sweep
        run.display_name = variables.get("displayName") or run.display_name
        run.group = variables.get("groupName") or run.group
        run.job_type = variables.get("jobType") or run.job_type
        run.tags = variables.get("tags") or run.tags
        run.host = variables.get("host") or run.host
        run.commit = variables.get("commit") or run.commit
        run.config.update(json.loads(variables.get("config") or "{}"))
        run.summary.update(json.loads(variables.get("summaryMetrics") or "{}"))
        if run.state != "preempting":
            run.state = variables.get("state") or "running"
        return {"upsertBucket": {"bucket": run.node(), "inserted": inserted}}

    def _node(self, variables: Variables) -> dict[str, Any] | None:
        run = self.runs.get(variables.get("name") or variables.get("runId") or "")
        return run.node() if run is not None else None

    def _run(self, variables: Variables) -> dict[str, Any]:
        return {"project": {"internalId": "1", "run": self._node(variables)}}

    def _resume_status(self, variables: Variables) -> dict[str, Any]:
        place = {"id": "1", "name": variables.get("project"), "entity": {"name": variables.get("entity") or ENTITY}}
        return {"model": {**place, "bucket": self._node(variables)}}

    def _runs(self, variables: Variables) -> dict[str, Any]:
        """A page of a project's runs, oldest first."""
        place = variables.get("entity") or ENTITY, variables["project"]
        if place not in self._projects():
            return {"project": None}
        filters = json.loads(variables.get("filters") or "{}")
        found = [run for run in self.runs.values() if (run.entity, run.project) == place and _matches(run, filters)]
        first = 1 + next((i for i, run in enumerate(found) if run.name == variables.get("cursor")), -1)
        last = first + variables["perPage"]
        page = _connection([(run.name, run.node()) for run in found[first:last]], more=last < len(found))
        return {"project": {"internalId": "1", "readOnly": False, "runCount": len(found), "runs": page}}

    def _create_files(self, variables: Variables) -> dict[str, Any]:
        run = self.runs[variables["run"]]
        files = [{"name": name, "uploadUrl": f"/storage/{run.name}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": run.node()["id"], "uploadHeaders": [], "files": files}}

    def stream(self, run: Run, body: Mapping[str, Any]) -> None:
        """What a run's process says as it goes: history, summary, console, and how it ended."""
        run.heard = time.monotonic()
        if run.state == "crashed":
            run.state = "running"
        for name, chunk in (body.get("files") or {}).items():
            lines, offset = chunk["content"], chunk["offset"]
            if name == "wandb-summary.json":
                run.summary = json.loads(lines[-1])
            elif name == "wandb-history.jsonl":
                run.history[offset:] = [json.loads(line) for line in lines]
            elif name == "output.log":
                run.output.update(enumerate(lines, start=offset))
        if body.get("preempting"):
            run.state = "preempting"
        if body.get("complete"):
            run.exit_code = body.get("exitcode", 0)
            ended = "preempted" if run.state == "preempting" and run.sweep else "failed"
            run.state = ended if run.exit_code else "finished"


def _matches(run: Run, filters: Mapping[str, Any]) -> bool:
    """W&B's filters, after MongoDB's: ``$and``, ``$or``, and a value or ``$eq``, ``$ne``, ``$in`` for a key."""
    for key, wanted in filters.items():
        if key == "$and":
            fits = all(_matches(run, each) for each in wanted)
        elif key == "$or":
            fits = any(_matches(run, each) for each in wanted)
        else:
            fits = _fits(_filtered(run, key), wanted if isinstance(wanted, dict) else {"$eq": wanted})
        if not fits:
            return False
    return True


def _filtered(run: Run, key: str) -> Any:
    if key.startswith("config."):
        return run.values().get(key.removeprefix("config.").removesuffix(".value"))
    if key.startswith("summary_metrics."):
        return run.summary.get(key.removeprefix("summary_metrics."))
    return {
        "name": run.name, "display_name": run.display_name, "state": run.state, "sweep": run.sweep,
        "group": run.group, "jobType": run.job_type, "tags": run.tags,
    }[key]  # fmt: skip


def _fits(value: Any, wanted: Mapping[str, Any]) -> bool:
    values = value if isinstance(value, list) else [value]  # a list fits if one of its items does
    fitting: dict[str, Callable[[Any], bool]] = {
        "$eq": lambda other: other in values,
        "$ne": lambda other: other not in values,
        "$in": lambda others: any(each in others for each in values),
    }
    return all(fitting[operator](other) for operator, other in wanted.items())


class _Server(ThreadingHTTPServer):
    """Cuts its open connections when it is closed; else clients that are connected would never see it go."""

    daemon_threads = False
    standin: "WandbServer"

    def __init__(self, *arguments: Any) -> None:
        self.connected: set[socket.socket] = set()
        super().__init__(*arguments)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connected.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self.connected.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed resets its connection, which is no news; mistakes of ours are kept for the tests."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.standin.errors.append(f"{type(error).__name__}: {error}")

    def cut(self) -> None:
        for connection in list(self.connected):
            with contextlib.suppress(OSError):  # it has gone by itself
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: `WandbServer.requests` has it all."""

    def do_POST(self) -> None:
        body = json.loads(self._body())
        key = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        if key != f"api:{KEY}":
            self._answer({"errors": [{"message": "user is not logged in", "path": ["viewer"]}]}, 401)
        elif self.path == "/graphql":
            self._answer(self.server.standin.graphql(body, f"http://{self.headers['Host']}"))
        else:
            *_, run, _ = self.path.split("/")  # /files/ENTITY/PROJECT/RUN/file_stream
            self._answer(self.server.standin.file_stream(run, body))

    def do_PUT(self) -> None:
        _, _, run, name = self.path.split("/", 3)  # /storage/RUN/NAME
        self.server.standin.upload(run, name, self._body())
        self._answer({})

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _answer(self, answer: Mapping[str, Any], code: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class WandbServer:
    """The server in a thread of this process, which can go away and come back.

    Attributes:
        state: runs and sweeps, for asserts.
        requests: everything that was sent, oldest first: ``{"operation", "variables"}``,
            ``{"operation": "file_stream", "run", "body"}`` or ``{"operation": "upload", "run", "name"}``.
        errors: what went wrong here, as for an operation that it doesn't know; empty if all was understood.
        port: the same after a :meth:`stop` and :meth:`start`.
    """

    def __init__(self) -> None:
        self.state = State()
        self.requests: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.port = 0
        self._lock = threading.Lock()
        self.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.standin = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        """Go away: connections are cut, new ones refused. What was stored stays."""
        self._server.shutdown()
        self._thread.join()
        self._server.cut()
        self._server.server_close()

    def environment(self, folder: Path, key: str = KEY) -> dict[str, str]:
        """For the processes of a user who is logged in here, and who leaves nothing outside of `folder`."""
        folders = {name: folder / name.lower() for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")}
        folders |= {"WANDB_DATA_DIR": folder / "wandb_data_dir", "WANDB_ARTIFACT_DIR": folder / "wandb_artifact_dir"}
        for each in folders.values():
            each.mkdir(parents=True, exist_ok=True)
        return {name: str(each) for name, each in folders.items()} | {
            "WANDB_BASE_URL": self.base_url,
            "WANDB_API_KEY": key,
            "NETRC": str(folder / "no_netrc"),
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_SILENT": "true",
            "WANDB_INIT_TIMEOUT": "600",  # on a busy machine it answers late; a run would go on without it
            "WANDB__SERVICE_WAIT": "600",
        }

    def graphql(self, request: Mapping[str, Any], base_url: str) -> dict[str, Any]:
        """Answer one operation, told by its name in the query: the public API leaves ``operationName`` empty."""
        named = re.search(r"\b(?:query|mutation)\s+(\w+)", request["query"])
        name = named[1] if named else "?"
        variables = request.get("variables") or {}
        with self._lock:
            self.requests.append({"operation": name, "variables": variables})
            self.state.call_crashed()
            operation = self.state.operations.get(name)
            if operation is None:
                self.errors.append(f"unknown operation {name}")
                return {"data": None, "errors": [{"message": f"unknown operation {name}"}]}
            data = _asked_for(operation(variables), request["query"])
        for file in data.get("createRunFiles", {}).get("files", []):
            file["uploadUrl"] = base_url + file["uploadUrl"]
        return {"data": data}

    def file_stream(self, run: str, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.requests.append({"operation": "file_stream", "run": run, "body": body})
            self.state.stream(self.state.runs[run], body)
        return {"exitcode": None, "limits": {}}

    def upload(self, run: str, name: str, content: bytes) -> None:
        with self._lock:
            self.requests.append({"operation": "upload", "run": run, "name": name})
            self.state.runs[run].files[name] = content
