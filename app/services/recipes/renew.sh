#!/bin/sh
# At every start, what this machine must not share with others made from the same template, where it is not there.
[ ! -x /usr/bin/ssh-keygen ] || ssh-keygen -A
if [ -x /usr/sbin/make-ssl-cert ] && [ ! -s /etc/ssl/private/ssl-cert-snakeoil.key ]; then
    make-ssl-cert generate-default-snakeoil --force-overwrite
fi
if [ -x /usr/bin/xrdp-keygen ] && [ ! -s /etc/xrdp/rsakeys.ini ]; then
    xrdp-keygen xrdp auto
    chown xrdp:xrdp /etc/xrdp/rsakeys.ini
    chmod 0600 /etc/xrdp/rsakeys.ini
fi
exit 0
