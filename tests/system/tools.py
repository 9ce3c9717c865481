"""Programs from public registries that the tests start: built once, exact versions, kept in CAIRN_TOOLS_DIR
(~/.cache/cairn by default). Where what is needed to get one is missing, the test is skipped by name and
reason; where it is there and the build fails, the test fails."""

import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
GO_SDK = "github.com/cloudstateio/go-support v0.3.0"
PORCUPINE = "github.com/anishathalye/porcupine v1.3.1"
TLOG = "golang.org/x/mod v0.27.0"
GRPC_INTEROP = "v1.83.2"
H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"


def tools_dir():
    home = os.environ.get("CAIRN_TOOLS_DIR") or pathlib.Path.home() / ".cache" / "cairn"
    folder = pathlib.Path(home)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _go(least=(1, 24)):
    go = shutil.which("go")
    if not go:
        pytest.skip("go is not on PATH (%d.%d or newer; Debian 12 has 1.19)" % least)
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True).stdout
    found = re.match(r"go(\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) < least:
        pytest.skip("go is %s, needed is %d.%d or newer" % (version.strip(), *least))
    return go


_NO_NETWORK = re.compile(r"dial tcp|no such host|i/o timeout|network is unreachable|connection refused|"
                         r"TLS handshake timeout|module lookup disabled")


def _run_go(arguments, folder, env=None):
    done = subprocess.run([_go()] + arguments, cwd=folder, capture_output=True, text=True, env={
        **os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", **(env or {})})
    if done.returncode != 0:
        if _NO_NETWORK.search(done.stderr):
            pytest.skip("the Go module proxy cannot be reached: %s" % done.stderr.strip().splitlines()[-1])
        raise AssertionError("go %s:\n%s" % (" ".join(arguments), done.stderr))


class _Once:
    """Several test programs may want the same tool at once: one builds it, the others wait."""

    def __init__(self, folder):
        self._folder = folder

    def __enter__(self):
        self._lock = open(str(self._folder) + ".lock", "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __exit__(self, *exc):
        self._lock.close()


def _go_program(folder_name, name, module, package, main=None):
    """A program that requires the module: one of its own commands, or our `main` file."""
    folder = tools_dir() / folder_name
    program = folder / name
    with _Once(folder):
        current = main.read_bytes() if main else b""
        if program.exists() and (not main or (folder / "main.go").read_bytes() == current):
            return program
        folder.mkdir(exist_ok=True)
        (folder / "go.mod").write_text("module fn\n\ngo 1.24\n\nrequire %s\n" % module)
        if main:
            (folder / "main.go").write_bytes(current)
        # Under another name first: what is there under the right one is whole.
        _run_go(["build", "-o", name + ".new", package], folder)
        os.replace(folder / (name + ".new"), program)
    return program


def _go_function(name, package, main=None):
    """A function on the Go SDK."""
    return _go_program("go-support-v0.3.0-" + name, name, GO_SDK, package, main)


def go_linear():
    """The checker of histories, on a checker that no one here wrote; see go/linear.go."""
    return _go_program("porcupine-v1.3.1", "linear", PORCUPINE, ".", HERE / "go" / "linear.go")


def go_tlog():
    """The verifier of checkpoints and proofs, on Go's own tlog and note; see go/tlog.go."""
    return _go_program("x-mod-v0.27.0", "tlog", TLOG, ".", HERE / "go" / "tlog.go")


def go_cart():
    """The Go SDK's shopping cart alone, a snapshot every 5 events."""
    return _go_function("cart", "github.com/cloudstateio/go-support/tck/cmd/tck_shoppingcart")


def go_tck():
    """The Go SDK's own test function whole: its fifteen services of every kind in one process."""
    return _go_function("tck", "github.com/cloudstateio/go-support/tck/cmd/tck_eventsourced")


def go_models():
    """The Go SDK's event sourced model services and its cart, see go/main.go."""
    return _go_function("models", ".", HERE / "go" / "main.go")


def go_crdt():
    """The Go SDK's CRDT model services, see go/crdt.go."""
    return _go_function("crdt", ".", HERE / "go" / "crdt.go")


def go_kinds():
    """The Go SDK's model services of event sourced and value entities and of actions, see go/kinds.go."""
    return _go_function("kinds", ".", HERE / "go" / "kinds.go")


def go_events():
    """The Go SDK's model services of event logs, see go/events.go."""
    return _go_function("events", ".", HERE / "go" / "events.go")


def go_topics():
    """Actions on the Go SDK whose methods have topics, see go/topics.go."""
    return _go_function("topics", ".", HERE / "go" / "topics.go")


PYTHON_SDK = "cloudstate==0.1.1"


def _python38():
    found = shutil.which("python3.8")
    if found and subprocess.run([found, "-c", "import venv"], capture_output=True).returncode == 0:
        return found
    for folder in sorted(pathlib.Path.home().glob(".pyenv/versions/3.8*")):
        if (folder / "bin" / "python").exists():
            return folder / "bin" / "python"
    pytest.skip("Python 3.8 is neither on PATH nor under pyenv: the Python SDK 0.1.1 runs on no other")


def python_sdk():
    """A Python 3.8 that has the protocol's own Python SDK."""
    python = _python38()
    folder = tools_dir() / "cloudstate-python-0.1.1"
    with _Once(folder):
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            for arguments in ([python, "-m", "venv", folder],
                              [folder / "bin" / "pip", "install", "-q", "setuptools<60"],
                              [folder / "bin" / "pip", "install", "-q", PYTHON_SDK]):
                done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
                if done.returncode != 0:
                    if re.search(r"NewConnectionError|No matching distribution|Max retries", done.stderr):
                        pytest.skip("the Python package index cannot be reached: %s"
                                    % done.stderr.strip().splitlines()[-1])
                    raise AssertionError("%s:\n%s" % (arguments, done.stderr))
            (folder / "ready").touch()
    return folder / "bin" / "python"


def _java():
    for name in ("java", "javac", "mvn"):
        if not shutil.which(name):
            pytest.skip("%s is not on PATH: the Java SDK needs a JDK (8 to 17) and Maven" % name)
    said = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if not version or not 8 <= int(version[1]) <= 17:
        pytest.skip("java is %s, the Java SDK runs on 8 to 17" % said.splitlines()[0])
    return "java"


def java_sdk_cart(sample):
    """The command that runs java_sdk/Cart.java, on the .proto files of the sample."""
    java = _java()
    sources = {HERE / "java_sdk" / "pom.xml": "pom.xml",
               HERE / "java_sdk" / "Cart.java": "src/main/java/Cart.java",
               sample / "shoppingcart.proto": "src/main/proto/shoppingcart.proto",
               sample / "domain.proto": "src/main/proto/domain.proto"}
    folder = tools_dir() / "cloudstate-java-support-0.5.2"
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    with _Once(folder):
        ready = folder / "ready"
        if not ready.exists() or ready.read_text() != digest:
            shutil.rmtree(folder, ignore_errors=True)
            for path, name in sources.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(path.read_bytes())
            done = subprocess.run(["mvn", "-q", "-B", "compile", "dependency:copy-dependencies",
                                   "-DoutputDirectory=lib"], cwd=folder, capture_output=True, text=True)
            if done.returncode != 0:
                if re.search(r"Could not transfer|Unknown host|Connection refused|timed out", done.stdout):
                    pytest.skip("Maven's repository cannot be reached")
                raise AssertionError("mvn:\n%s%s" % (done.stdout, done.stderr))
            ready.write_text(digest)
    return [java, "-XX:TieredStopAtLevel=1", "-cp", "%s/target/classes:%s/lib/*" % (folder, folder), "Cart"]


def grpcurl():
    folder = tools_dir() / "grpcurl-v1.9.4"
    program = folder / "grpcurl"
    with _Once(folder):
        if not program.exists():
            folder.mkdir(exist_ok=True)
            _run_go(["install", GRPCURL], folder, {"GOBIN": str(folder)})
    return program


def _installed(folder_name, programs, packages):
    """The folder with Go programs installed into it."""
    folder = tools_dir() / folder_name
    with _Once(folder):
        if not all((folder / name).exists() for name in programs):
            folder.mkdir(exist_ok=True)
            _run_go(["install"] + packages, folder, {"GOBIN": str(folder)})
    return folder


def grpc_interop():
    """The folder of grpc-go's interop programs, `client` and `server`."""
    folder = tools_dir() / ("grpc-interop-" + GRPC_INTEROP)
    if not (folder / "server").exists():
        _go(least=(1, 25))
    return _installed(folder.name, ["client", "server"],
                      ["google.golang.org/grpc/interop/%s@%s" % (name, GRPC_INTEROP)
                       for name in ("client", "server")])


def h2spec():
    return _installed("h2spec-v2.2.1", ["h2spec"], [H2SPEC]) / "h2spec"


def nghttp():
    found = shutil.which("nghttp")
    if not found:
        pytest.skip("nghttp is missing: apt-get install nghttp2-client")
    return found


def h2load():
    found = shutil.which("h2load")
    if not found:
        pytest.skip("h2load is missing: apt-get install nghttp2-client")
    return found


def program(name):
    """One of our own programs, as built."""
    path = pathlib.Path(os.environ.get("CAIRN_BUILDDIR", os.getcwd())) / name
    if not path.exists():
        pytest.fail("%s is not built: run make, or set CAIRN_BUILDDIR" % path)
    return path
