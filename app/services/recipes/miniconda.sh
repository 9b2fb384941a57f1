# Miniconda in /opt/miniconda, for everybody of the machine; environments lie in each one's home. Whichever mirror it
# comes from, the installer is known by its SHA-256.
case $(uname -m) in
    x86_64) sum=$SUM_X86_64 ;;
    aarch64) sum=$SUM_AARCH64 ;;
    *) echo "There is no Miniconda for $(uname -m)."; exit 1 ;;
esac
file=Miniconda3-$VERSION-Linux-$(uname -m).sh
apt-get -qy install curl ca-certificates bzip2
installer=$(mktemp)
curl -fsSL --retry 2 --connect-timeout 30 --max-filesize 1000000000 -o "$installer" "$SOURCE/$file" || {
    echo "$SOURCE does not give $file: name another mirror in BERTH_SOURCES (miniconda=https://…)."; exit 1
}
echo "$sum  $installer" | sha256sum --check --status || {
    echo "$SOURCE/$file is not the file that Berth knows: its SHA-256 is another one."; exit 1
}
rm -rf /opt/miniconda
bash "$installer" -b -p /opt/miniconda
rm -f "$installer"
/opt/miniconda/bin/conda config --system --set auto_activate_base false
ln -sf /opt/miniconda/etc/profile.d/conda.sh /etc/profile.d/conda.sh
/opt/miniconda/bin/conda --version
