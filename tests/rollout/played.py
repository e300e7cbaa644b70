"""Pods as processes: command, variables, files, user and read-only root are the manifest's; all have one network.

Each container has a root of its own: this machine's, on top of it what the Dockerfile adds, and the manifest's volumes.
Not played: limits of CPU and memory, seccomp, the network policies.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regworkers_core.settings import PROJECT_ROOT
from tests.infrastructure.deploy.pods import DEPLOY, NAMESPACE

USER = 10001
API_PORT = 6443
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_VENV = PROJECT_ROOT / ".venv"
# The root stays writable until all is mounted. What only the container's root could do is dropped with the user.
_START = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$POD"
mkdir "$POD/upper" "$POD/work" "$POD/root"
cp -a "$POD.image/." "$POD/upper/"
mount -t overlay overlay -o "lowerdir=/,upperdir=$POD/upper,workdir=$POD/work" "$POD/root"
for each in proc dev sys; do mount --rbind "/$each" "$POD/root/$each"; done
$MOUNTS
$READ_ONLY
exec chroot "$POD/root" setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups --no-new-privs \\
  --bounding-set=-all --inh-caps=-all env -i -C "$FOLDER" "$@"
"""


@dataclass
class Cluster:
    """`maps` and `secrets` are by name. `hosts` are names of this machine, `cloud` are the variables that the cloud
    gives a pod with an account, and `jobs` those that the API was asked for.
    """

    folder: Path
    maps: dict[str, Mapping[str, str]]
    secrets: dict[str, Mapping[str, str]]
    hosts: list[str]
    cloud: Mapping[str, str]
    certificate: str
    pods: dict[str, Pod] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)

    def start(self, name: str, spec: Mapping[str, Any], container: str = "") -> Pod:
        """The container of this name, or the only one. Raises KeyError for a config map, a secret or a key in one that
        does not exist.
        """
        (chosen,) = (each for each in spec["containers"] if container in ("", each["name"]))
        pod = Pod(name, self.folder / name, spec, chosen)
        pod.start(self)
        self.pods[name] = pod
        return pod

    def end(self) -> None:
        """Kill what still runs."""
        for pod in self.pods.values():
            if pod.process.poll() is None:
                pod.process.kill()
            pod.process.wait()

    def variables(self, spec: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, str]:
        """In the order in which a later one replaces an earlier one, as in the cluster."""
        found = {**_of_the_image()}
        if spec.get("serviceAccountName"):
            found |= self.cloud
        found |= {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(API_PORT)}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                found |= self.maps[source["configMapRef"]["name"]]
            else:
                found |= self.secrets[source["secretRef"]["name"]]
        for each in container.get("env", []):
            if "value" in each:
                found[each["name"]] = _expanded(each["value"], found)
            else:
                key = each["valueFrom"]["secretKeyRef"]
                found[each["name"]] = self.secrets[key["name"]][key["key"]]
        return found


@dataclass
class Pod:
    """One container of a pod. `log` has what it wrote to stdout and stderr."""

    name: str
    folder: Path
    spec: Mapping[str, Any]
    container: Mapping[str, Any]
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def log(self) -> str:
        return self.folder.with_suffix(".log").read_text(errors="replace")

    def start(self, cluster: Cluster) -> None:
        image = self.folder.with_suffix(".image")
        for folder in (self.folder, image):
            folder.mkdir(parents=True)
        _build(image, cluster.hosts)
        mounts = "\n".join(self._mounts(cluster, image))
        security = self.container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        lock = 'mount -o remount,ro "$POD/root"' if security["readOnlyRootFilesystem"] else ""
        script = _START.replace("$MOUNTS", mounts).replace("$READ_ONLY", lock)
        variables = cluster.variables(self.spec, self.container)
        given = [f"{name}={value}" for name, value in variables.items()]
        words = [*self.container.get("command", []), *self.container.get("args", [])]
        command = [_expanded(each, variables) for each in words]
        with self.folder.with_suffix(".log").open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--ipc", "bash", "-c", script, "pod", *given, *command],
                env={
                    "PATH": os.environ["PATH"],
                    "POD": str(self.folder),
                    "USER_ID": str(self.spec["securityContext"]["runAsUser"]),
                    "FOLDER": "/opt/regworkers",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def terminate(self) -> int:
        """SIGTERM: the exit code. Raises TimeoutExpired after the grace of the manifest."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(self.spec.get("terminationGracePeriodSeconds", 30))

    def runs(self, *words: str) -> bool:
        """Whether this command succeeds inside of the pod, as a probe's does."""
        inside = ["nsenter", "--mount", "--target", str(self.process.pid)]
        chroot = ["chroot", str(self.folder / "root"), "setpriv", "--reuid", str(USER), "--clear-groups"]
        return not subprocess.run([*inside, *chroot, *words], capture_output=True, check=False).returncode

    def _mounts(self, cluster: Cluster, image: Path) -> Iterator[str]:
        # The image has no instance of a developer.
        (image / str(PROJECT_ROOT / ".local").lstrip("/")).mkdir(parents=True)
        yield f'mount -t tmpfs -o mode=755 tmpfs "$POD/root{PROJECT_ROOT}/.local"'
        volumes = {each["name"]: each for each in self.spec.get("volumes", [])}
        for mount in self.container.get("volumeMounts", []):
            path = mount["mountPath"].rstrip("/")
            source = self._volume(cluster, volumes[mount["name"]]) / mount.get("subPath", "")
            assert source.exists(), f"{path}: there is no {mount['subPath']}"
            place = image / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir(exist_ok=True) if source.is_dir() else place.touch()
            yield f'mount --bind {shlex.quote(str(source))} "$POD/root{path}"'
            if mount.get("readOnly"):
                yield f'mount -o remount,bind,ro "$POD/root{path}"'
        if self.spec.get("automountServiceAccountToken", True):
            token = self.folder.with_suffix(".account")
            _write(token, {"token": "token", "ca.crt": cluster.certificate, "namespace": NAMESPACE})
            (image / _ACCOUNT.lstrip("/")).mkdir(parents=True)
            yield f'mount --bind {shlex.quote(str(token))} "$POD/root{_ACCOUNT}"'

    def _volume(self, cluster: Cluster, volume: Mapping[str, Any]) -> Path:
        folder = self.folder.with_suffix(f".volume-{volume['name']}")
        if "emptyDir" in volume:
            folder.mkdir(exist_ok=True)
            os.chown(folder, USER, USER)
        elif "configMap" in volume:
            _write(folder, cluster.maps[volume["configMap"]["name"]])
        else:
            _write(folder, cluster.secrets[volume["secret"]["secretName"]])
        return folder


def _write(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda each: variables.get(each[1], each[0]), text)


def _of_the_image() -> dict[str, str]:
    """The variables of the Dockerfile's last stage."""
    stage = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").rpartition("\nFROM ")[2]
    lines = "\n".join(re.findall(r"(?m)^ENV (.+)$", "ENV " + stage.partition("\n")[2]))
    return {"PATH": "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"} | {
        name: value for name, _, value in (each.partition("=") for each in lines.split()) if name != "PATH"
    }


def _build(image: Path, hosts: list[str]) -> None:
    """What the Dockerfile puts over the base image; the packages are those of this checkout."""
    programs = image / "opt" / "venv" / "bin"
    programs.mkdir(parents=True)
    for each in (_VENV / "bin").iterdir():
        (programs / each.name).symlink_to(each)
    web = programs / "dagster-webserver"
    web.unlink(missing_ok=True)
    web.symlink_to(_VENV / "bin" / "regworkers-web")
    shutil.copytree(PROJECT_ROOT / "configs", image / "opt" / "regworkers" / "configs")
    home = image / "opt" / "dagster" / "dagster_home"
    home.mkdir(parents=True)
    shutil.copy(DEPLOY / "dagster.yaml", home)
    os.chown(home, USER, USER)
    (image / "etc").mkdir()
    names = " ".join(["localhost", *hosts])
    (image / "etc" / "hosts").write_text(f"127.0.0.1 {names}\n")
    user = f"root:x:0:0::/root:/bin/sh\nregworkers:x:{USER}:{USER}::/home/regworkers:/bin/sh\n"
    (image / "etc" / "passwd").write_text(user)
    # A developer's home is closed to others, and Python may be in there.
    for path in {Path(sys.base_prefix).resolve(), PROJECT_ROOT}:
        (image / str(path).lstrip("/")).mkdir(parents=True, exist_ok=True)
