# What the admin asked for besides. Names only; an option could run anything.
[ -z "$PACKAGES" ] || apt-get -qy install -- $PACKAGES
