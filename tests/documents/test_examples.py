"""The examples do what they say, started by the very commands that they name."""

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import megacache._settings
from megacache._catalog import Inventory
from megacache._cli.app import COMMANDS, app
from tests.kit.builders import open_store
from tests.kit.processes import REPOSITORY, Processes
from tests.kit.servers import Server, free_port
from tests.kit.shells import SECONDS, Shell, ended, search_path

EXAMPLES = REPOSITORY / "examples"
FILES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_file() and path.name != "__init__.py")
PROGRAMS = [name for name in FILES if name.endswith(".py")]
WORKFLOW = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text())
OBJECTS = list(yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text()))
DEPLOYMENTS = {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == "Deployment"}
DOCKERFILE = (EXAMPLES / "Dockerfile").read_text()
README = (EXAMPLES / "README.md").read_text()
OPTIONAL = re.compile(r"\$\{\w+:\+([^}]*)\}")
ASSIGNMENT = re.compile(r"\b[A-Z_]+=(\$\([^)]*\)|\S+)\s+")


def documented(name: str) -> str:
    """Give the command in the docstring of an example, without the variables that it sets."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / name).read_text())) or ""
    return ASSIGNMENT.sub("", re.findall(r"^    (\S.*)$", docstring, re.MULTILINE)[-1])


def told(printed: str, what: str) -> list[str]:
    """Find the lines that begin with some words and a colon, without these."""
    return re.findall(rf"^{what}[^:\n]*: (.*)$", printed, re.MULTILINE)


def assert_warm(first: str, second: str) -> None:
    """Check that the first run published, that the second found everything, and that both computed the same."""
    assert told(first, "warm")[0].startswith("miss")
    assert told(first, "publish")[0].startswith("published")
    assert told(second, "warm")[0].startswith("loaded")
    assert set(told(second, "publish")) == {"unchanged"}
    (receipt,) = told(second, "receipt")
    assert receipt.startswith("warm: ")
    assert "compiled anew: 0 C++ and 0 Triton kernels" in receipt
    assert told(first, "output") == told(second, "output") != []


def bundles(store: Path) -> int:
    """Count the bundles in a store."""
    return sum(len(holding.manifests) for holding in Inventory.of(open_store(store.as_uri())).holdings)


def needs(*packages: str) -> None:
    """Skip a test whose packages are not there."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Let command lines find the package that is tested."""
    return search_path(tmp_path_factory.mktemp("bin"))


@pytest.fixture
def shell(processes: Processes, path: str) -> Shell:
    """Run commands where the examples are."""
    return Shell(processes=processes, path=path, folder=EXAMPLES)


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory: pytest.TempPathFactory, probes: Path, path: str) -> tuple[Path, str]:
    """Run the quick start cold, once for all tests that need a cache; give its store and what it printed."""
    folder = tmp_path_factory.mktemp("quick-start")
    shell = Shell(processes=Processes(folder / "processes", probes), path=path, folder=EXAMPLES)
    return folder / "store", shell.run(documented("quick_start.py"), MEGACACHE_URL=str(folder / "store"))


def test_quick_start(quick_start: tuple[Path, str], shell: Shell) -> None:
    """The second process compiles nothing and computes the same."""
    store, first = quick_start
    assert_warm(first, shell.run(documented("quick_start.py"), MEGACACHE_URL=str(store)))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("warm_and_publish.py", "torch"),
        pytest.param("diffusers_unet.py", "diffusers", marks=pytest.mark.nightly),
        pytest.param("transformers_causal_lm.py", "transformers", marks=pytest.mark.nightly),
    ],
)
def test_second_start_is_warm(name: str, package: str, shell: Shell, tmp_path: Path) -> None:
    """A model is compiled by the first process, and by no later one."""
    needs(package)
    first, second = (shell.run(documented(name), MEGACACHE_URL=str(tmp_path / "store")) for _ in range(2))
    assert_warm(first, second)


def test_multi_stage(shell: Shell, tmp_path: Path) -> None:
    """Each stage publishes a bundle with what is new; a later process finds those of all stages."""
    command = documented("multi_stage.py")
    first, second = (shell.run(command, MEGACACHE_URL=str(tmp_path / "store")) for _ in range(2))
    assert_warm(first, second)
    assert [status.split(":")[0] for status in told(first, "publish")] == ["published"] * 3 + ["unchanged"]
    assert bundles(tmp_path / "store") == 3


def test_training_restart(shell: Shell, tmp_path: Path) -> None:
    """Training that is killed resumes warm at its checkpoint, and ends where training that nobody disturbs ends."""
    import torch

    program = documented("training_restart.py").removesuffix(" checkpoint.pt 1000")
    url, checkpoint = str(tmp_path / "store"), tmp_path / "killed.pt"
    with shell.start(f"exec {program} {checkpoint} 100000", MEGACACHE_URL=url) as popen:
        assert popen.stdout is not None
        assert any(line.startswith("publish: published") for line in popen.stdout)
        until(checkpoint.exists)
        popen.kill()
        assert ended(popen)[0] == -signal.SIGKILL
    step = torch.load(checkpoint)["step"]
    resumed = shell.run(f"{program} {checkpoint} {step + 50}", MEGACACHE_URL=url)
    undisturbed = shell.run(f"{program} {tmp_path / 'undisturbed.pt'} {step + 50}", MEGACACHE_URL=url)
    assert resumed.splitlines()[0] == f"starts at step {step}"
    assert undisturbed.splitlines()[0] == "starts at step 0"
    assert told(resumed, "receipt")[0].startswith("warm: ")
    assert told(resumed, "output") == told(undisturbed, "output") != []


def test_torchrun_ranks(shell: Shell, tmp_path: Path) -> None:
    """Both ranks are looked after: what they compile is one bundle, and in the next run all of their lookups hit."""
    command = documented("torchrun_ranks.py").replace("s3://bucket/ranks/v1", str(tmp_path / "store"))
    first = shell.run(command)
    second = shell.run(command.replace("megacache run", "megacache run --min-hit-rate 1"))
    assert bundles(tmp_path / "store") == 1
    assert "6 of 6 lookups hit, in 2 processes" in second
    assert told(first, "output") == told(second, "output") != []


def answer(port: int, path: str, rows: object = None) -> tuple[int, Any]:
    """Ask a server of ours; give status and answer, or 0 if nobody listens yet."""
    body = None if rows is None else json.dumps(rows).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=body, headers={"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, None
    except urllib.error.URLError:
        return 0, None


def served(shell: Shell, command: str, store: Path) -> tuple[list[float], dict[str, Any], str]:
    """Start a server, see it live before it is ready, use it, and end it; give scores, receipt and what it printed."""
    port = free_port()

    def says(path: str, status: int) -> bool:
        assert popen.poll() is None, ended(popen)
        return answer(port, path)[0] == status

    with shell.start(f"exec {command.replace('8000', str(port))}", MEGACACHE_URL=str(store)) as popen:
        until(lambda: says("/livez", 200))
        assert bundles(store) or says("/readyz", 503)  # a warm start may be faster than this question
        until(lambda: says("/readyz", 200))
        _, scores = answer(port, "/scores", [[0.5] * 16, [0.25] * 16])
        _, receipt = answer(port, "/receipt")
        refused, _ = answer(port, "/scores", [[0.5] * 3])
        popen.send_signal(signal.SIGTERM)
        code, printed = ended(popen)
    assert code in {0, -signal.SIGTERM}, printed
    assert refused == 422, printed
    return scores, receipt, printed


def test_serve_fastapi(shell: Shell, tmp_path: Path) -> None:
    """The server is ready once it has compiled everything, publishes, and is warm at its next start.

    That start is the one of `kubernetes.yaml`, below `megacache run`.
    """
    needs("fastapi", "uvicorn")
    store = tmp_path / "store"
    scores, receipt, first = served(shell, documented("serve_fastapi.py"), store)
    assert (len(scores), receipt["inductor"]["missed"]) == (2, 2)
    assert told(first, "publish")[0].startswith("published")
    (container,) = containers(DEPLOYMENTS["scorer"])
    command = shlex.join([*container["command"], *container["args"]])
    scores_again, receipt, second = served(shell, command.replace("s3://my-bucket/scorer/v1", str(store)), store)
    assert receipt["verdict"].startswith("warm: ")
    assert (receipt["inductor"]["hit"], receipt["inductor"]["missed"]) == (2, 0)
    assert told(second, "publish")[-1] == "unchanged"
    assert scores_again == scores


def containers(deployment: Any) -> Any:
    """Give the containers of a deployment."""
    return deployment["spec"]["template"]["spec"]["containers"]


def option(command: list[str], name: str) -> float:
    """Find the number that an option is given, in either form."""
    words = " ".join(command).replace("=", " ").split()
    return float(words[words.index(name) + 1])


def test_kubernetes_waits_for_what_is_being_published() -> None:
    """The time that a pod has to end is enough for everything that its end waits for."""
    spec = DEPLOYMENTS["scorer"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    command = [*container["command"], *container["args"]]
    (upload,) = re.findall(r"publish\(wait=False, timeout=(\d+)\)", (EXAMPLES / "serve_fastapi.py").read_text())
    pause = container["lifecycle"]["preStop"]["exec"]["command"]
    ending = float(pause[1]) + option(command, "--timeout-graceful-shutdown") + option(command, "--exit-timeout")
    assert spec["terminationGracePeriodSeconds"] >= ending + float(upload)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_kubernetes_objects_fit_each_other(name: str) -> None:
    """Probes, ports, labels, volumes and accounts that a deployment names are there."""
    spec = DEPLOYMENTS[name]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    accounts = {one["metadata"]["name"] for one in OBJECTS if one["kind"] == "ServiceAccount"}
    served_paths = re.findall(r'@app\.get\("(.*)"\)', (EXAMPLES / "serve_fastapi.py").read_text())
    for probe in ("readinessProbe", "livenessProbe"):
        if probe in container:
            assert container[probe]["httpGet"]["path"] in served_paths
            assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
    variables = {one["name"]: one["value"] for one in container["env"]}
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    (volume,) = spec["volumes"]
    assert "emptyDir" in volume
    assert mounts[variables["TORCHINDUCTOR_CACHE_DIR"]] == volume["name"]
    assert spec["serviceAccountName"] in accounts
    assert DEPLOYMENTS[name]["spec"]["selector"]["matchLabels"] == {"app": name}
    assert (variables.get("MEGACACHE_READ_ONLY") == "1") == (name == "scorer-preview")


@pytest.fixture
def cloud(request: pytest.FixtureRequest, name: str) -> tuple[str, dict[str, str]]:
    """Give the job of a cloud, and what leads its commands to a local server of that kind."""
    server: Server = request.getfixturevalue({"s3": "moto_s3", "gcs": "gcs_server"}[request.param])
    options = {key: str(value) for key, value in server.storage_options.items()}
    variables = {"CACHE_URL": f"{server.url}/{name}"}
    if request.param == "gcs":
        return request.param, {**variables, "FSSPEC_GCS": json.dumps(options)}
    secrets = {"AWS_ACCESS_KEY_ID": options["key"], "AWS_SECRET_ACCESS_KEY": options["secret"]}
    return request.param, {**variables, **secrets, "AWS_ENDPOINT_URL": options["endpoint_url"]}


@pytest.mark.parametrize("cloud", ["s3", pytest.param("gcs", marks=pytest.mark.nightly)], indirect=True)
def test_workflow_pushes_what_the_next_process_finds(
    cloud: tuple[str, dict[str, str]], quick_start: tuple[Path, str], processes: Processes, path: str, tmp_path: Path
) -> None:
    """The steps of a job, run one after the other as they stand, push to its cloud, and find all of it there."""
    job, variables = cloud
    shutil.copytree(quick_start[0], tmp_path / "cache")  # what the job would compile, to save the time
    shutil.copy(EXAMPLES / "quick_start.py", tmp_path / "warm_up.py")
    (tmp_path / "temporary").mkdir()
    shell = Shell(processes=processes, path=path, folder=tmp_path)
    _compile, push, check = (one["run"] for one in WORKFLOW["jobs"][job]["steps"] if "name" in one)
    folders = {"RUNNER_TEMP": str(tmp_path), "TMPDIR": str(tmp_path / "temporary")}
    if job == "s3":  # the other job has the same step, which asks no cloud
        assert "warm loaded" in shell.run(_compile, **folders)
    pushed, checked = (shell.run(step, **folders, **variables) for step in (push, check))
    assert "1 bundle copied to" in pushed
    assert "2 of 2 lookups hit" in checked
    assert told(checked, "output") == told(quick_start[1], "output")


def test_jobs_of_the_workflow_differ_in_their_cloud_only() -> None:
    """Each job is told who it is without a key, and only after it has run the program."""
    assert WORKFLOW["permissions"] == {"contents": "read", "id-token": "write"}
    s3, gcs = (WORKFLOW["jobs"][job]["steps"] for job in ("s3", "gcs"))
    assert [one["run"] for one in s3 if "name" in one] == [one["run"] for one in gcs if "name" in one]
    for steps in (s3, gcs):
        order = [one.get("name") or one.get("uses") or "install" for one in steps]
        (identity,) = (place for place, one in enumerate(steps) if place and "uses" in one)
        assert order.index("Compile") < identity < order.index("Push")
    assert "secrets." not in (EXAMPLES / "github-actions.yml").read_text()


def instructions() -> list[str]:
    """Give the instructions of the Dockerfile, each in one line."""
    lines = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    return re.sub(r"\\\n\s*", " ", lines).splitlines()


def test_dockerfile_bakes_a_cache_that_is_found(quick_start: tuple[Path, str], shell: Shell, tmp_path: Path) -> None:
    """What the first stage pulls, where PyTorch cannot be imported, is what the image's variables lead to."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('this stage has no PyTorch')")
    (pull,) = (line for line in instructions() if "megacache pull" in line)
    image = re.sub(r"^RUN (--mount\S+ )?", "", pull).replace("/opt/cache", str(tmp_path / "baked"))
    python_path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    shell.run(image, CACHE_URL=str(quick_start[0]), DEVICE="", PYTHONPATH=python_path)
    (variables,) = (line for line in instructions() if line.startswith("ENV "))
    told_apart = dict(pair.split("=") for pair in shlex.split(variables)[1:])
    assert told_apart["MEGACACHE_URL"] == "file:///opt/cache"
    baked = (tmp_path / "baked").as_uri()
    printed = shell.run(documented("quick_start.py"), **{**told_apart, "MEGACACHE_URL": baked})
    assert told(printed, "receipt")[0].startswith("warm: ")
    assert told(printed, "publish")[0].startswith("read_only")


def test_dockerfile_installs_what_pulling_needs() -> None:
    """The stage without PyTorch installs every other dependency of the package, and the client of S3."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = {re.split("[>=]", one)[0] for one in [*project["dependencies"], *project["optional-dependencies"]["s3"]]}
    (install,) = (line for line in instructions() if "--no-deps megacache" in line)
    named = shlex.split(install.split("&&")[0])
    assert {one for one in named[3:] if not one.startswith("-")} == needed - {"torch"}


def command_lines() -> Iterator[list[str]]:
    """Find each command line of megacache in the examples."""
    texts = [documented(name) for name in PROGRAMS]
    texts += [line.removeprefix("RUN ") for line in instructions()]
    texts += [step.get("run", "") for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    texts += re.findall(r"`(megacache [^`]* [^`]*)`", README)
    for text in texts:
        for line in re.split(r"\n|&&", text.replace("\\\n", " ")):
            words = shlex.split(re.sub(r"--mount\S+", "", OPTIONAL.sub(r"\1", ASSIGNMENT.sub("", line))))
            if words and words[0] == "megacache":
                yield words[1:]
    for deployment in DEPLOYMENTS.values():
        for container in containers(deployment):
            yield [*container["command"], *container["args"]][1:]


@pytest.mark.parametrize("words", list(command_lines()), ids=" ".join)
def test_every_command_and_option_exists(words: list[str]) -> None:
    """The command line takes each command of the examples with its options and arguments."""
    parent = click.Context(app, **app.context_settings)
    command = app.get_command(parent, words[0])
    assert command is not None
    with command.make_context(words[0], words[1:], parent=parent):
        pass


@pytest.mark.parametrize("name", FILES)
def test_every_name_exists(name: str) -> None:
    """Commands that are mentioned and variables that are set are those that megacache has."""
    text = (EXAMPLES / name).read_text()
    read = set(re.findall(r"MEGACACHE_[A-Z_]+", Path(megacache._settings.__file__).read_text()))
    assert set(re.findall(r"MEGACACHE_[A-Z_]+", text)) <= read
    assert set(re.findall(r"`megacache (\w+)", text)) <= set(COMMANDS)


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".md")])
def test_every_example_is_listed_and_tested(name: str) -> None:
    """The table has a row for each file, with the command that its docstring has, and a test of this module uses it."""
    (row,) = re.findall(rf"^\| \[{re.escape(name)}\]\({re.escape(name)}\) .*\| `(.*)` \|$", README, re.MULTILINE)
    if name in PROGRAMS:
        assert row == documented(name)
    assert name in Path(__file__).read_text()
