"""The peers and the tools of the benchmark, from Debian."""

import os
import pathlib
import shutil
import subprocess

# Program: package.
_PACKAGES = {"nginx": "nginx-light", "wrk": "wrk", "haproxy": "haproxy", "strace": "strace"}
# Without these nothing can be measured: nginx is the origin too.
_NEEDED = ("nginx", "wrk")

_POLICY = pathlib.Path("/usr/sbin/policy-rc.d")


def provide(programs: list[str]) -> list[str]:
    """Installs what is missing, if this user may. Returns what is still missing.
    Raises RuntimeError when nothing can be done without it."""
    # Debian keeps servers where users do not look for programs.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = _missing(programs)
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing", *(_PACKAGES[p] for p in missing), flush=True)
        _install([_PACKAGES[p] for p in missing])
        missing = _missing(programs)
    if missing:
        remedy = "On Debian or Ubuntu: sudo apt-get install " + " ".join(_PACKAGES[p] for p in missing)
        if set(missing) & set(_NEEDED):
            raise RuntimeError("missing: %s. %s" % (", ".join(missing), remedy))
        print("missing: %s; going on without. %s" % (", ".join(missing), remedy), flush=True)
    return missing


def _missing(programs: list[str]) -> list[str]:
    return [p for p in programs if shutil.which(p) is None]


def _install(packages: list[str]) -> None:
    # The packages are wanted, not the services that they start.
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-qq"], **quiet)
        for p in packages:  # one by one: what cannot be had does not take the others along
            subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", p], **quiet)
    finally:
        if ours:
            _POLICY.unlink()
