"""Install clipbert_mm (editable) and its extras into the environment of this Python, as `make setup` does.

uv takes 38 s of processor time, pip 188 s. uv is used if it is on the PATH or pip can install it; otherwise, or if it fails,
pip does the work. On a machine without an NVIDIA GPU, uv takes PyTorch's wheels for the CPU if their index answers.
"""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = ("--editable", f"{HERE.parent}[tests,docs,page,open-clip,faiss]")
HEADLESS = "opencv-python-headless"
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
"""pip's settings, and the environment variables that tell uv the same."""


def uv_settings(pip_settings: str) -> dict[str, str]:
    """Return pip's settings as environment variables of uv, which does not read them itself.

    Args:
        pip_settings: What ``pip config list`` prints: lines such as ``global.index-url='https://example.org/simple'``.
    """
    lines = [line.partition("=") for line in pip_settings.splitlines()]
    by_key = {key: ast.literal_eval(value) for key, _, value in lines}
    settings = {}
    for section in ("global", "install", ":env:"):  # the later overrides the earlier
        for option, name in UV_NAMES.items():
            if value := by_key.get(f"{section}.{option}"):
                settings[name] = ("," if option == "find-links" else " ").join(value.split())
    if "UV_INDEX" in settings:
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip's way: the newest release of all indexes
    return settings


def pip(*arguments: str) -> subprocess.CompletedProcess:
    """Run this environment's pip, which prints only errors."""
    return subprocess.run([sys.executable, "-m", "pip", *arguments, "-qq"])


def find_uv() -> str | None:
    """Return the command of uv, which is installed into this environment where there is none."""
    return shutil.which("uv") or (
        None if pip("install", "uv").returncode else str(Path(sys.executable).with_name("uv"))
    )


def uv_install(uv: str) -> bool:
    """Install with uv; tell whether it worked."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    environment = uv_settings(listed) | os.environ
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    options = ["--excludes", str(HERE / "opencv.txt")]
    if sys.dont_write_bytecode:  # else Python compiles what it imports at the first time
        options.append("--compile-bytecode")
    if not shutil.which("nvidia-smi") and "UV_TORCH_BACKEND" not in environment:
        options += ["--excludes", str(HERE / "gpu.txt")]
        wheels_for_cpu = ["--torch-backend", "cpu"]
        probe = [*command, "--dry-run", "--no-deps", *wheels_for_cpu, "torch"]
        once = {"UV_HTTP_RETRIES": "0", "UV_HTTP_CONNECT_TIMEOUT": "5", "UV_HTTP_TIMEOUT": "10"}
        if not subprocess.run(probe, env=environment | once, stderr=subprocess.DEVNULL).returncode:
            options += wheels_for_cpu
    return not subprocess.run([*command, *options, *PACKAGE, HEADLESS], env=environment).returncode


def pip_install() -> None:
    """Install with pip."""
    if code := pip("install", *PACKAGE).returncode:
        sys.exit(code)
    # Without the system's libGL, OpenCV's usual wheels cannot be imported, and the headless one takes their place.
    if subprocess.run([sys.executable, "-c", "import cv2"], stderr=subprocess.DEVNULL).returncode:
        pip("install", "--force-reinstall", "--no-deps", HEADLESS)


def main() -> None:
    """Install everything, and say what was left out."""
    uv = find_uv()
    if not (uv and uv_install(uv)):
        print("uv cannot be used; pip installs instead, which takes some minutes.")
        pip_install()
    importlib.invalidate_caches()
    if not importlib.util.find_spec("decord"):
        print(
            "Left out: decord, which has no wheel for this machine. PyAV reads videos; backend='decord' cannot be used."
        )


if __name__ == "__main__":
    main()
