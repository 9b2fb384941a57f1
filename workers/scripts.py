"""What Berth does inside people's machines, as constant scripts for /bin/sh. Each may be repeated at any time.

All that varies comes by the environment (a login as in `app.services.accounts.USERNAME`, a mark) or, what is secret, by
the standard input. A machine may answer whatever it likes.
"""

from __future__ import annotations

# The account and what has to be different in every machine. Says `missing PROGRAM`, ends with `settled`, the account's
# `uid NUMBER` (BERTH_UID, unless that or the name was there before) and the host keys, or ends
# with TAKEN when the image needs the name for itself.
# sudo asks for no password: whoever may use it is root in here anyway, most people come by their key and have no
# password at all, and a password typed into a machine that others may have broken into is one to lose.
TAKEN = 3
SETTLE = r"""
umask 022
has() { command -v "$1" > /dev/null 2>&1; }
login=$BERTH_LOGIN
gid=$(getent group "$login" | cut -d: -f3)  # a group that the image needs would give the account its rights
[ -z "$gid" ] || [ "$gid" -ge 1000 ] || exit 3
shell=/bin/bash
has bash || { echo missing bash; shell=/bin/sh; }
unused() { [ -n "$1" ] && [ "$1" -ge 1000 ] && ! getent passwd "$1" > /dev/null; }
uid=$(id -u "$login" 2> /dev/null)
if [ -n "$uid" ]; then
  [ "$uid" -ge 1000 ] || exit 3
elif has useradd; then
  # a home that was kept keeps its owner; else the person has the same number as everywhere
  number=$(stat -c %u "/home/$login" 2> /dev/null)
  unused "$number" || number=$BERTH_UID
  unused "$number" || number=
  if [ -z "$gid" ] && [ -n "$number" ] && ! getent group "$number" > /dev/null; then
    groupadd --gid "$number" "$login" && gid=$number
  fi
  useradd --create-home --shell "$shell" ${number:+-u "$number"} ${gid:+-g "$gid"} "$login" || exit 4
  usermod -p '*' "$login"  # no password, which is not the same as locked: sshd lets keys in
else
  echo missing useradd; exit 4
fi
getent group sudo > /dev/null || groupadd --system sudo
# Whose files are in the shared directories, and who may write into the common ones.
if ! getent group "$BERTH_COMMON" > /dev/null; then
  for name in lab berth-lab; do
    getent group "$name" > /dev/null || { groupadd --gid "$BERTH_COMMON" "$name"; break; }
  done
fi
common=$(getent group "$BERTH_COMMON" | cut -d: -f1)
usermod --append --groups "sudo${common:+,$common}" "$login"
if has sudo && [ -d /etc/sudoers.d ]; then
  rule="$login ALL=(ALL:ALL) NOPASSWD: ALL"
  if [ "$(cat /etc/sudoers.d/90-berth 2> /dev/null)" != "$rule" ]; then
    rm -f /etc/sudoers.d/90-berth
    (umask 0227; echo "$rule" > /etc/sudoers.d/90-berth)
  fi
else
  echo missing sudo
fi
# What came with the image is in all machines made of it: the first time, it is made anew.
new=
[ "$(cat /etc/berth-machine 2> /dev/null)" = "$BERTH_MARK" ] || new=yes
[ -s /etc/machine-id ] || ! has systemd-machine-id-setup || systemd-machine-id-setup > /dev/null 2>&1
[ -x /usr/sbin/sshd ] || echo missing sshd
if has ssh-keygen && [ -d /etc/ssh ]; then
  [ -z "$new" ] || rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
  before=$(ls /etc/ssh/ssh_host_*_key 2> /dev/null)
  ssh-keygen -A > /dev/null 2>&1
  if [ "$(ls /etc/ssh/ssh_host_*_key 2> /dev/null)" != "$before" ]; then restart=ssh; fi
elif [ -x /usr/sbin/sshd ]; then
  echo missing ssh-keygen
fi
if [ -e /etc/xrdp/xrdp.ini ]; then
  if [ -n "$new" ] || [ ! -s /etc/xrdp/cert.pem ] || [ ! -s /etc/xrdp/key.pem ]; then
    if has openssl; then
      rm -f /etc/xrdp/cert.pem /etc/xrdp/key.pem  # links to one that others may have, too
      (umask 077; openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=berth \
        -keyout /etc/xrdp/key.pem -out /etc/xrdp/cert.pem > /dev/null 2>&1)
      chmod 644 /etc/xrdp/cert.pem
      ! getent passwd xrdp > /dev/null || chown xrdp /etc/xrdp/key.pem
      restart="${restart:-} xrdp"
    else
      echo missing openssl
    fi
  fi
  if has xrdp-keygen && { [ -n "$new" ] || [ ! -s /etc/xrdp/rsakeys.ini ]; }; then  # without, xrdp does not start
    rm -f /etc/xrdp/rsakeys.ini
    xrdp-keygen xrdp auto > /dev/null 2>&1
    ! getent passwd xrdp > /dev/null || chown xrdp /etc/xrdp/rsakeys.ini
    chmod 600 /etc/xrdp/rsakeys.ini
    restart="${restart:-} xrdp"
  fi
fi
if has systemctl; then
  for unit in ssh sshd xrdp; do
    [ -e "/lib/systemd/system/$unit.service" ] || [ -e "/usr/lib/systemd/system/$unit.service" ] || continue
    [ ! -L "/lib/systemd/system/$unit.service" ] || continue
    systemctl --quiet enable "$unit" > /dev/null 2>&1
    case " ${restart:-} " in
      *" ${unit%d} "*|*" $unit "*) systemctl --no-block reset-failed "$unit"; systemctl --no-block restart "$unit" ;;
      *) systemctl --no-block start "$unit" ;;
    esac > /dev/null 2>&1
  done
fi
rm -f /etc/berth-machine
echo "$BERTH_MARK" > /etc/berth-machine
echo settled
echo "uid $(id -u "$login")"
cat /etc/ssh/ssh_host_*_key.pub 2> /dev/null | head -c 8000
exit 0
"""

# The keys that sshd shows, as the machine has them.
HOST_KEYS = "cat /etc/ssh/ssh_host_*_key.pub 2> /dev/null | head -c 8000"

# The owner's keys, between two marks; the person's own lines stay. As that person and not as root: a link in there must
# lead nowhere that the person could not go (a shared directory, say).
KEYS = r"""
line=$(getent passwd "$BERTH_LOGIN") || exit 4
home=$(echo "$line" | cut -d: -f6)
uid=$(echo "$line" | cut -d: -f3)
gid=$(echo "$line" | cut -d: -f4)
[ "$uid" -ge 1000 ] && [ -n "$home" ] || exit 4
exec setpriv "--reuid=$uid" "--regid=$gid" --init-groups env -i "PATH=$PATH" LC_ALL=C.UTF-8 "HOME=$home" \
  sh -c "$BERTH_WRITE"
"""
WRITE = r"""
set -eu
umask 077
cd "$HOME"
keys=$(cat)
file=.ssh/authorized_keys new=.ssh/.berth-new
[ -n "$keys" ] || [ -f "$file" ] || exit 0
[ -d .ssh ] || mkdir .ssh
rm -f "$new"
{
  [ ! -f "$file" ] || awk '
    /^# Berth: keys from here/ { printf "%s", held; held = $0 "\n"; inside = 1; next }
    /^# Berth: to here/ && inside { held = ""; inside = 0; next }
    inside { held = held $0 "\n"; next }
    { print }
    END { if (inside) { sub(/^[^\n]*\n/, "", held); printf "%s", held } }' "$file"
  if [ -n "$keys" ]; then
    echo "# Berth: keys from here on are those of your settings; it writes them anew whenever they change."
    echo "$keys"
    echo "# Berth: to here. Lines of your own, above or below, stay as they are."
  fi
} > "$new"
chmod 600 "$new"
mv -f "$new" "$file"
"""

# A hash by the standard input, for the account's password.
NEW_HASH = r"""
hash=$(cat)
getent passwd "$BERTH_LOGIN" > /dev/null || { echo no such account; exit 4; }
printf '%s:%s\n' "$BERTH_LOGIN" "$hash" | chpasswd -e
"""
