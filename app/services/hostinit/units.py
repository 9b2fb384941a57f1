"""systemd's units for a workstation: the rules of the bridge, and the agent."""

from __future__ import annotations

FIREWALL = """\
# Made by `berth host init`.
[Unit]
Description=Berth: what machines may reach
Documentation=man:nft(8)
DefaultDependencies=no
Before=network-pre.target lxd.service snap.lxd.daemon.service shutdown.target
Wants=network-pre.target
After=local-fs.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {rules}
ExecReload=/usr/sbin/nft -f {rules}
ExecStop=/usr/sbin/nft delete table inet {table}

[Install]
WantedBy=sysinit.target
"""

# Root, since it looks into processes and cgroups of all machines; of root's powers it has what that takes, and nothing
# a machine says can make it write elsewhere. SETUID and SETGID: files of images are read by a child that is nobody.
# Out of memory: everybody else goes first.
AGENT = """\
# Made by `berth host init`.
[Unit]
Description=Berth: the agent of {name}
After=network-online.target lxd.service snap.lxd.daemon.service berth-firewall.service
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart={berth} agent {name}
EnvironmentFile={environment}
Environment=BERTH_DATA=/var/lib/berth
StateDirectory=berth
StateDirectoryMode=0700
Restart=always
RestartSec=2
KillMode=mixed
TimeoutStopSec=20
OOMScoreAdjust=-900
MemoryMin=64M
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_SYS_PTRACE CAP_KILL CAP_CHOWN CAP_FOWNER CAP_FSETID CAP_MKNOD
CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE CAP_SYS_ADMIN CAP_BPF CAP_PERFMON CAP_NET_ADMIN
CapabilityBoundingSet=CAP_SETUID CAP_SETGID
ProtectSystem=strict
ReadWritePaths=/sys/fs/cgroup -/var/lib/lxd -/var/snap/lxd/common
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap

[Install]
WantedBy=multi-user.target
"""
