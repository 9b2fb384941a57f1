# Xfce behind xrdp, a browser, Chinese fonts and pinyin.
browser=
for name in firefox-esr chromium epiphany-browser; do # Ubuntu's firefox and chromium are snaps, which need nesting
    candidate=$(apt-cache policy $name | sed -n 's/^  Candidate: //p')
    case $candidate in ''|'(none)'|*snap*) ;; *) browser=$name; break ;; esac
done
echo 'xrdp shared/default-x-display-manager select' | debconf-set-selections 2>/dev/null || true
apt-get -qy install xfce4 xfce4-terminal mousepad xrdp xorgxrdp ssl-cert openssl dbus-x11 dbus-user-session adwaita-icon-theme \
    x11-utils xauth fonts-noto-cjk fonts-dejavu-core ibus ibus-libpinyin ibus-gtk3 $browser
adduser xrdp ssl-cert # else xrdp cannot read its key, and falls back to no TLS at all
sed -i 's/^security_layer=.*/security_layer=tls/; s/^ssl_protocols=.*/ssl_protocols=TLSv1.2, TLSv1.3/' /etc/xrdp/xrdp.ini
sed -i 's/^AllowRootLogin=.*/AllowRootLogin=false/' /etc/xrdp/sesman.ini
# xrdp's session is /etc/X11/Xsession, and that asks for this alternative where an account has no ~/.xsession.
update-alternatives --set x-session-manager /usr/bin/startxfce4
mkdir -p /etc/skel/.config/xfce4/xfconf/xfce-perchannel-xml
cat > /etc/skel/.config/xfce4/xfconf/xfce-perchannel-xml/xfwm4.xml <<'END'
<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfwm4" version="1.0">
  <property name="general" type="empty"><property name="use_compositing" type="bool" value="false"/></property>
</channel>
END
# IBus by itself offers what the language says, and that is English. A person's own choice goes before this. The keyboard
# stays the viewer's. From version 1.5.8 on a first start does not say that it listens to other keys.
cat > /usr/share/glib-2.0/schemas/90_berth.gschema.override <<'END'
[org.freedesktop.ibus.general]
preload-engines=['xkb:us::eng', 'libpinyin']
use-system-keyboard-layout=true
version='1.5.8'
[org.freedesktop.ibus.general.hotkey]
triggers=['<Control>space', '<Super>space']
END
for compile in /usr/lib/*/glib-2.0/glib-compile-schemas; do $compile /usr/share/glib-2.0/schemas; done
cat > /etc/X11/Xsession.d/65berth-input <<'END'
# Pinyin through IBus (Ctrl+Space or Super+Space), where the person has chosen nothing else.
if [ -z "$GTK_IM_MODULE" ]; then
    export GTK_IM_MODULE=ibus QT_IM_MODULE=ibus XMODIFIERS=@im=ibus
    ibus-daemon --daemonize --xim --replace > /dev/null 2>&1 || true
fi
END
systemctl enable xrdp xrdp-sesman
systemctl restart xrdp-sesman xrdp
for _ in $(seq 20); do grep -qi ':0D3D ' /proc/net/tcp /proc/net/tcp6 && break; sleep 0.5; done
grep -qi ':0D3D ' /proc/net/tcp /proc/net/tcp6 || { echo "xrdp does not listen:"; journalctl -n 30 -u xrdp --no-pager; exit 1; }
