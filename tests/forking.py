"""Code in a process without pytest, as quickly as a fork of one that has imported its libraries."""

import json
import subprocess
import sys
from types import TracebackType
from typing import NamedTuple

SERVER = """
import json, os, sys, tempfile, traceback
exec(sys.argv[1])
for line in sys.stdin:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = os.fork()
        if not process:
            os.dup2(out.fileno(), 1), os.dup2(errors.fileno(), 2)
            code = 0
            try:
                exec(json.loads(line), {"__name__": "__main__"})
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(process, 0)
        out.seek(0), errors.seek(0)
        print(json.dumps([status, out.read(), errors.read()]), flush=True)
"""


class Ran(NamedTuple):
    """What code printed before its process ended."""

    stdout: str
    stderr: str


class ForkingProcess:
    """A Python process that does nothing but some imports; each code is run in a fork of it."""

    def __init__(self, imports: str) -> None:
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVER, imports], **pipes)

    def __enter__(self) -> "ForkingProcess":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def run(self, code: str) -> Ran:
        """Run code; it has to end without an error."""
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        status, stdout, stderr = json.loads(self.process.stdout.readline())
        assert status == 0, stderr
        return Ran(stdout, stderr)

    def modules_after(self, code: str) -> set[str]:
        """Return the modules that are imported after code was run."""
        return set(self.run(f"{code}\nimport sys\nprint()\nprint(*sys.modules)").stdout.splitlines()[-1].split())
