# Where packages come from: $MIRROR if the admin named one, and security updates in any case.
. /etc/os-release
code=${VERSION_CODENAME:?this image does not say which release it is}
case $ID in debian|ubuntu) ;; *) echo "This recipe is for Debian and Ubuntu, and this is $PRETTY_NAME."; exit 1 ;; esac
cat > /etc/apt/apt.conf.d/90berth-build <<'END'
Acquire::Retries "3";
Acquire::http::Timeout "30";
APT::Install-Recommends "false";
DPkg::Lock::Timeout "300";
Dpkg::Use-Pty "false";
Dpkg::Options { "--force-confdef"; "--force-confold"; };
END
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/berth-build # what breaks off is made anew, so nothing has to reach the disk
systemctl stop apt-daily.timer apt-daily-upgrade.timer 2>/dev/null || true # nobody else is at apt meanwhile
if [ -n "$MIRROR" ]; then
    for old in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/ubuntu.sources; do
        [ ! -e $old ] || mv $old $old.disabled
    done
    if [ "$ID" = ubuntu ]; then
        for suite in $code $code-updates $code-security; do
            echo "deb $MIRROR $suite main restricted universe multiverse"
        done > /etc/apt/sources.list
    else
        case $MIRROR in */debian) security=$MIRROR-security ;; *) security=http://security.debian.org/debian-security ;; esac
        printf 'deb %s main contrib\n' "$MIRROR $code" "$MIRROR $code-updates" "$security $code-security" \
            > /etc/apt/sources.list
    fi
elif [ "$ID" = debian ] && ! grep -rqs -- '-security' /etc/apt/sources.list /etc/apt/sources.list.d; then
    echo "deb http://deb.debian.org/debian-security $code-security main" > /etc/apt/sources.list.d/security.list
fi
apt-get -q update 2>&1 | tee /tmp/berth-update
if ! grep -qE '^(Get|Hit):' /tmp/berth-update; then
    echo "No package mirror answers. Name one in the template's settings, or look at the host's network."
    exit 1
fi
for name in $PACKAGES; do # said now, and not after minutes
    apt-cache show --quiet=0 -- "$name" > /dev/null 2>&1 || { echo "E: Unable to locate package $name"; exit 1; }
done
