"""A real adbd on the loopback address, in a mount namespace of its own; a phone's answers may be first on its PATH."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from bench.running_servers import free_port
from harness.measure.targets import target_named
from harness.measure.targets.shell import ShellTarget


class Daemon:
    """An adbd whose home is ``folder``; ``small`` there is a file system of 80 MB.

    With a ``phone``, a folder of recorded answers, it has kernel files of a phone bound over this machine's.
    """

    def __init__(self, folder: Path, phone: Path | None = None) -> None:
        self.folder, self.port, self.answers = folder, free_port(), folder / "answers"
        programs = folder / "bin"
        programs.mkdir()
        (folder / "small").mkdir()
        mounts = f"mount -t tmpfs -o size=80m x {folder}/small"
        if phone is not None:
            shutil.copytree(phone, self.answers)
            (programs / "getprop").write_text(f"#!/bin/sh\ncat {self.answers}/getprop\n")
            (programs / "dumpsys").write_text(f'#!/bin/sh\ncat "{self.answers}/$1"\n')
            for program in programs.iterdir():
                program.chmod(0o755)
            zone = folder / "thermal" / "thermal_zone0"
            zone.mkdir(parents=True)
            (zone / "type").write_text("skin\n")
            (zone / "temp").write_text("38200\n")
            mounts += f"; mount --bind {folder}/thermal /sys/class/thermal"
        environment = os.environ | {"ADBD_PORT": str(self.port), "PATH": f"{programs}:{os.environ['PATH']}"}
        environment["HOME"] = str(folder)
        self.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", f"{mounts}; exec adbd"],
            env=environment,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.05)

    @property
    def name(self) -> str:
        """As a target."""
        return f"adb://127.0.0.1:{self.port}"

    def target(self, place: str = "pushed") -> ShellTarget:
        """The target, with files pushed to a folder of ours."""
        return target_named(self.name, folder=str(self.folder / place))

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
