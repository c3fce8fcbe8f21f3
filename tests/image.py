"""Builds and runs the Dockerfile without a container engine: its own steps, in plain directories.

A stage is a directory, and an absolute path of the image is a path below it. `FROM python` becomes
an environment of the same Python there. What this can't show: the base image and its system
libraries, and the kernel's isolation. An instruction that isn't rehearsed is an error.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_DECLARATIONS = {"LABEL", "EXPOSE"}  # say something about the image and do nothing
_SECONDS_TO_START = 60.0
_SECONDS_TO_STOP = 10.0  # Cloud Run: SIGKILL 10 seconds after SIGTERM


class RehearsalError(Exception):
    """The Dockerfile can't be rehearsed, or what it makes does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction of a Dockerfile, continued lines joined."""

    name: str
    text: str


def instructions(dockerfile: str) -> list[Instruction]:
    """The instructions, in order, without comments."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    parts = [line.strip().partition(" ") for line in lines if line.strip()]
    return [Instruction(name=name.upper(), text=rest.strip()) for name, _, rest in parts]


def context_files(context: Path) -> list[Path]:
    """The files that the engine is given, relative to the context: those .dockerignore leaves."""
    rules = _rules(context / ".dockerignore")
    kept = [rule for is_kept, rule in rules if is_kept]
    found = []
    for folder, folders, names in context.walk():
        here = folder.relative_to(context)
        folders[:] = [
            name
            for name in folders
            if not _is_ignored(here / name, rules)
            or any(rule.startswith(f"{here / name}/") for rule in kept)
        ]
        found += [here / name for name in names if not _is_ignored(here / name, rules)]
    return sorted(found)


def _rules(dockerignore: Path) -> list[tuple[bool, str]]:
    lines = [line.strip() for line in dockerignore.read_text("utf-8").splitlines()]
    return [
        (line.startswith("!"), line.removeprefix("!").strip("/"))
        for line in lines
        if line and not line.startswith("#")
    ]


def _is_ignored(path: Path, rules: list[tuple[bool, str]]) -> bool:
    """The last rule that matches the path, or a folder it lies in, decides."""
    ways = [PurePosixPath(path), *PurePosixPath(path).parents]
    decided = False
    for is_kept, rule in rules:
        if any(way.full_match(rule) for way in ways):
            decided = not is_kept
    return decided


# Becomes a user, then the image's process. With Popen's `user` the process of the tests would fork,
# and its gRPC may write into the child's log.
_BECOME = """
import json, os, shutil, sys
user, environ, *command = sys.argv[1:]
environ = json.loads(environ)
program = shutil.which(command[0], path=environ["PATH"])
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
os.execve(program, command, environ)
"""


@dataclass(slots=True, kw_only=True)
class Stage:
    """One stage of the image: a directory that stands for its root, and its configuration."""

    root: Path
    environ: dict[str, str]
    workdir: str = "/"
    command: list[str] = field(default_factory=list)
    user: int | None = None
    """Who runs the command; None where we may not become somebody else."""

    def path(self, name: str) -> Path:
        """Where a path of the image lies."""
        return self.root / PurePosixPath(self.workdir, name).relative_to("/")

    def folder(self, name: str) -> Path:
        """Where a directory of the image lies, which is made when missing."""
        found = self.path(name)
        found.mkdir(parents=True, exist_ok=True)
        return found

    def start(
        self, arguments: Sequence[str], environ: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """A process of the image: its user, its environment and nothing of ours."""
        given = {**self.environ, **environ}
        if self.user is not None:
            become = [sys.executable, "-I", "-S", "-c", _BECOME, str(self.user), json.dumps(given)]
            arguments = [*become, *arguments]
        with log.open("wb") as out:
            return subprocess.Popen(  # noqa: S603 - what the image runs
                arguments,
                cwd=self.path("."),
                env=given if self.user is None else None,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )


def build(dockerfile: Path, work: Path, *, path: Sequence[Path] = ()) -> Stage:
    """The last stage, built in `work` from the folder of the Dockerfile.

    Programs in `path`, pip among them, go before the image's own while it is built.
    """
    os.umask(0o022)
    steps = instructions(dockerfile.read_text("utf-8"))
    users = [int(step.text.partition(":")[0]) for step in steps if step.name == "USER"]
    user = users[-1] if users and os.geteuid() == 0 else None
    python = _python(work / "python", user)
    stages: dict[str, Stage] = {}
    for step in steps:
        if step.name == "FROM":
            image, _, alias = step.text.partition(" AS ")
            stage = _from(image, python, work / f"stage-{len(stages)}", with_pip=not path)
            stages[alias or image] = stage
        elif step.name == "COPY":
            _copy(step.text, stage, stages, dockerfile.parent)
        elif step.name == "RUN":
            _run(step.text, stage, path)
        else:
            _tell(step, stage, user)
    _make_read_only(stage.root)
    return stage


def _python(copy: Path, user: int | None) -> Path:
    """Python, where that user may run it: this one, or a copy where this is in a private home."""
    mine = Path(sys._base_executable)  # type: ignore[attr-defined]  # noqa: SLF001 - not the .venv's
    if user is None or _may_run(mine, user):
        return mine
    library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
    prefix = Path(sys.base_prefix)
    left_out = shutil.ignore_patterns("site-packages", "test", "idlelib", "config-*")
    shutil.copytree(prefix / library, copy / library, symlinks=True, ignore=left_out)
    (copy / "bin").mkdir()
    shutil.copy2(mine, copy / "bin")
    for shared in (prefix / "lib").glob("libpython*.so*"):
        shutil.copy2(shared, copy / "lib", follow_symlinks=False)
    return copy / "bin" / mine.name


def _may_run(program: Path, user: int) -> bool:
    try:
        ran = subprocess.run([program, "-c", ""], user=user, cwd="/", check=False)  # noqa: S603
    except PermissionError:
        return False
    return ran.returncode == 0


def _from(image: str, python: Path, root: Path, *, with_pip: bool) -> Stage:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if image != f"python:{version}-slim":
        message = f"{image} can't be rehearsed with Python {version}."
        raise RehearsalError(message)
    environ = {"LD_LIBRARY_PATH": str(python.parent.parent / "lib")}
    options = [] if with_pip else ["--without-pip"]
    command = [str(python), "-m", "venv", *options, f"{root}/usr/local"]
    subprocess.run(command, env=environ, check=True)  # noqa: S603 - our own Python
    return Stage(root=root, environ={**environ, "PATH": f"{root}/usr/local/bin:/usr/bin:/bin"})


def _copy(text: str, stage: Stage, stages: Mapping[str, Stage], context: Path) -> None:
    *sources, target = text.split()
    if sources[0].startswith("--from="):
        whole = stages[sources.pop(0).removeprefix("--from=")]
        for source in sources:
            into = stage.folder(target)  # links take no time, and no stage changes after that
            shutil.copytree(whole.path(source), into, dirs_exist_ok=True, copy_function=os.link)
        return
    files = context_files(context)
    for source in sources:
        found = [file for file in files if file.is_relative_to(source)]
        if not found:
            message = f"COPY {text} finds no {source}: .dockerignore may leave it out."
            raise RehearsalError(message)
        for file in found:
            inside = file.name if file == Path(source) else file.relative_to(source)
            copy = stage.folder(target) / inside
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(context / file, copy)


def _run(text: str, stage: Stage, path: Sequence[Path]) -> None:
    command = re.sub(r"(?<=[\s=])/(?=\w)", f"{stage.root}/", text)
    programs = ":".join([*map(str, path), stage.environ["PATH"]])
    environ = {**os.environ, **stage.environ, "PATH": programs}
    # What pip installs is the same with its cache, and the machine's settings say where from.
    environ.pop("PIP_NO_CACHE_DIR", None)
    subprocess.run(["/bin/sh", "-ec", command], cwd=stage.path("."), env=environ, check=True)  # noqa: S603


def _tell(step: Instruction, stage: Stage, user: int | None) -> None:
    if step.name == "WORKDIR":
        stage.workdir = step.text
        stage.folder(".")
    elif step.name == "ENV":
        stage.environ |= dict(re.findall(r"(\w+)=(\S+)", step.text))
    elif step.name == "USER":
        stage.user = user
    elif step.name == "CMD":
        stage.command = json.loads(step.text)
    elif step.name not in _DECLARATIONS:
        message = f"{step.name} is not rehearsed: say in tests/image.py what it does."
        raise RehearsalError(message)


def _make_read_only(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service of the image, listening on a port of this machine."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, object]:
        """Status and JSON of one answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method, data=body
        )
        try:
            with _opener.open(request, timeout=300) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal)


# A proxy from the environment has no business between us and our own child.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def serving(stage: Stage, log: Path, environ: Mapping[str, str]) -> Iterator[Running]:
    """The image's command, from its first answer of /health on; ended by SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = stage.start(stage.command, {**environ, "PORT": str(port)}, log)
    running = Running(port=port, process=process, log=log)
    try:
        _await(running)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(running: Running) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end and running.process.poll() is None:
        try:
            running.request("GET", "/health")
        except urllib.error.URLError:
            time.sleep(0.02)
        else:
            return
    message = f"The service did not start: {running.log.read_text('utf-8')}"
    raise RehearsalError(message)
