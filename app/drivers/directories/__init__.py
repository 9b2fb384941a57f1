"""The host's own file systems, looked at in a process that can be abandoned."""

from app.drivers.directories.host import HostDirectories, NoDirectories

__all__ = ["HostDirectories", "NoDirectories"]
