# Last: take out what would make two machines of this template alike, or tell of the one it was made from.
# Berth makes keys, certificates and an account anew when it makes a machine (workers/scripts.py).
if command -v systemctl > /dev/null; then
    for _ in $(seq 300); do  # what is still booting writes a machine id, and keys, after they were taken out
        case $(systemctl is-system-running 2> /dev/null) in
            ''|offline|initializing|starting|unknown) sleep 0.2 ;;
            *) break ;;
        esac
    done
    systemctl stop xrdp xrdp-sesman ssh ssh.socket cron rsyslog 2> /dev/null || true
fi
rm -f /etc/ssh/ssh_host_* /etc/xrdp/rsakeys.ini
rm -f /etc/xrdp/cert.pem /etc/xrdp/key.pem /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem
rm -f /etc/berth-machine /etc/sudoers.d/90-berth
: > /etc/machine-id
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /etc/hostname
while IFS=: read -r name password _; do
    case $password in ''|[!*!]*) usermod --password '!*' "$name" 2>/dev/null || passwd -l "$name" ;; esac
done < /etc/shadow
while IFS=: read -r _ _ _ _ _ home _; do
    case $home in /root|/home/*) ;; *) continue ;; esac
    rm -rf "$home"/.ssh/authorized_keys* "$home"/.ssh/id_* "$home"/.ssh/known_hosts* "$home"/.*_history "$home"/.lesshst \
        "$home"/.viminfo "$home"/.wget-hsts "$home"/.Xauthority "$home"/.ICEauthority "$home"/.xsession-errors* \
        "$home"/.xorgxrdp* "$home"/.cache "$home"/.netrc "$home"/.git-credentials "$home"/.aws "$home"/.docker "$home"/.gnupg
done < /etc/passwd
[ ! -d /var/lib/cloud ] || { cloud-init clean --logs --seed 2>/dev/null || rm -rf /var/lib/cloud; }
rm -f /etc/apt/apt.conf.d/90berth-build /etc/dpkg/dpkg.cfg.d/berth-build
command -v apt-get > /dev/null && apt-get -q clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/crash/* /var/tmp/* /var/backups/* /var/lib/dhcp/* \
    /var/lib/NetworkManager/* /var/lib/systemd/coredump/*
find /tmp -mindepth 1 -xdev -delete 2>/dev/null || true
journalctl --rotate --vacuum-size=1 > /dev/null 2>&1 || true
rm -rf /var/log/journal/*
find /var/log -type f -exec truncate -s 0 {} +
sync
