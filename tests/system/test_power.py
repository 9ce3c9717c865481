"""Real power cuts: cairnd on an ext4 of its own, whose device stops under load without a flush (the file system's own
shutdown). What was synced is there after a remount, the rest is gone; nothing that was acknowledged may be among it.

cairnd is stopped before the cut: a sync that is under way when the file system is shut down may be told that it has
succeeded (a bare loop of write and fdatasync loses its last one in one cut out of ten, on Linux 6.18)."""

import fcntl
import os
import pathlib
import signal
import struct
import subprocess

import pytest

from harness import eventually, scaled
from test_kill import under_load

CUTS = 3
SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN


def tool(*command):
    return subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


class Disk:
    """A file system in a file, which can be cut off."""

    def __init__(self, folder):
        self.image, self.folder = folder / "disk.img", folder / "disk"
        self.folder.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(256 << 20)
        made = tool("mkfs.ext4", "-q", "-F", self.image)
        if made.returncode:
            pytest.skip("no mkfs.ext4: %s" % made.stdout)
        mounted = tool("mount", "-o", "loop", self.image, self.folder)
        if mounted.returncode:
            pytest.skip("no loop mounts here (they need root): %s" % mounted.stdout.strip())

    def cut(self):
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def again(self):
        done = tool("umount", self.folder)
        assert done.returncode == 0, done.stdout
        done = tool("mount", "-o", "loop", self.image, self.folder)
        assert done.returncode == 0, done.stdout


@pytest.fixture
def disk(lab):
    it = Disk(lab.folder)
    yield it
    for process in lab.processes:
        process.kill()
    tool("umount", it.folder)


def stop_all(pid):
    """Every thread stands still, and no call into the kernel is under way."""
    os.kill(pid, signal.SIGSTOP)
    tasks = pathlib.Path("/proc/%d/task" % pid)
    eventually(lambda: all(t.read_text().rsplit(") ", 1)[1][0] == "T" for t in tasks.glob("*/stat")), "it is stopped")


def test_a_power_cut_loses_nothing_that_was_acknowledged(lab, disk):
    cairnd = lab.cairnd("file:%s" % (disk.folder / "data"))

    def cut(_):
        stop_all(cairnd.pid)
        disk.cut()
        cairnd.kill()
        disk.again()
        cairnd.start()
        cairnd.ready()
    assert under_load([cairnd.port], cut, scaled(CUTS, 1), least=200, most=4000) > 0, "no cut hit anything"
