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
After=local-fs.target nftables.service
ReloadPropagatedFrom=nftables.service
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

# For nftables.service: Debian's /etc/nftables.conf begins with `flush ruleset`, so whenever that is loaded or given up,
# the table of Berth's is gone too, and its unit stays active.
BESIDE_NFTABLES = """\
# Made by `berth host init`.
[Service]
ExecStartPost=-/usr/bin/systemctl --no-block try-restart berth-firewall.service
ExecStopPost=-/usr/bin/systemctl --no-block try-restart berth-firewall.service
"""

# Root, since it looks into processes and cgroups of all machines; of root's powers it has what that takes, and nothing
# a machine says can make it write elsewhere. SETUID and SETGID: files of images are read by a child that is nobody.
# Out of memory: everybody else goes first. It is up when its first pass has ended, and alive while passes end (see
# workers.notify).
# What a stricter unit would break: shared directories may lie anywhere but in the system itself, hence neither
# ProtectSystem=strict nor ProtectHome; whether one can be id-mapped is tried out with open_tree, mount_setattr and a
# user namespace that has a root (CAP_SETFCAP), and one where all write is set-group-id, hence no RestrictSUIDSGID.
# Processes are compared and asked for their files by kcmp and pidfd_getfd, version 2 fences by bpf.
AGENT = """\
# Made by `berth host init`.
[Unit]
Description=Berth: the agent of {name}
After=network-online.target lxd.service snap.lxd.daemon.service berth-firewall.service
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
TimeoutStartSec=180
WatchdogSec=180
ExecStart={berth} agent {name}
EnvironmentFile={environment}
Environment=BERTH_DATA=/var/lib/berth
StateDirectory=berth
StateDirectoryMode=0700
Restart=always
RestartSec=2
KillMode=mixed
TimeoutStopSec=20
LimitCORE=0
OOMScoreAdjust=-900
MemoryMin=64M
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_SYS_PTRACE CAP_KILL CAP_CHOWN CAP_FOWNER CAP_FSETID CAP_SETFCAP
CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE CAP_SYS_ADMIN CAP_BPF CAP_NET_ADMIN
CapabilityBoundingSet=CAP_SETUID CAP_SETGID
ProtectSystem=full
ReadOnlyPaths=-%h
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
LockPersonality=yes
RestrictNamespaces=user
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service bpf kcmp pidfd_getfd open_tree mount_setattr
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
