# What every machine has: an init that works, a way in, the lab's languages, and what people miss in the first minute.
echo 'man-db man-db/auto-update boolean false' | debconf-set-selections 2>/dev/null || true
apt-get -qy --with-new-pkgs upgrade # what the start image has may be months old
resolver=
if [ -e /etc/systemd/network/80-berth.network ] && [ ! -e /lib/systemd/systemd-resolved ] \
    && apt-cache show systemd-resolved > /dev/null 2>&1; then
    resolver=systemd-resolved
fi
apt-get -qy install systemd systemd-sysv udev dbus libpam-systemd libnss-myhostname openssh-server sudo ca-certificates locales tzdata \
    iproute2 iputils-ping procps psmisc python3-minimal curl rsync less nano vim-tiny bash-completion $resolver
[ -z "$resolver" ] || systemctl enable systemd-resolved
[ -f /etc/locale.gen ] || touch /etc/locale.gen
for name in en_US.UTF-8 zh_CN.UTF-8; do
    sed -i "/^#* *$name UTF-8/d" /etc/locale.gen
    echo "$name UTF-8" >> /etc/locale.gen
done
locale-gen
update-locale LANG=en_US.UTF-8
mkdir -p /run/sshd
/usr/sbin/sshd -t
# Nobody can plug in hardware, and a machine's clock is its host's.
systemctl mask systemd-udev-settle.service systemd-binfmt.service systemd-timesyncd.service e2scrub_reap.service 2>/dev/null || true
# Its owner has other things to do: security updates come by themselves, daily. Not NVIDIA's libraries, which have to
# be of the host driver's version.
if apt-cache show unattended-upgrades > /dev/null 2>&1; then
    apt-get -qy install unattended-upgrades
    cat > /etc/apt/apt.conf.d/52berth-security <<'END'
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
#clear Unattended-Upgrade::Allowed-Origins;
#clear Unattended-Upgrade::Origins-Pattern;
Unattended-Upgrade::Origins-Pattern {
    "origin=Debian,codename=${distro_codename}-security,label=Debian-Security";
    "origin=Ubuntu,archive=${distro_codename}-security";
};
Unattended-Upgrade::Package-Blacklist { "nvidia-"; "libnvidia-"; };
END
else
    echo "The package mirror has no unattended-upgrades: machines of this template get no security updates by themselves."
fi
