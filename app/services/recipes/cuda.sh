# CUDA's compiler and libraries, from NVIDIA's own packages: the user space alone, since the driver is the host's.
. /etc/os-release
name=$ID$(echo "$VERSION_ID" | tr -d .)
case $name in
    debian12|ubuntu2204|ubuntu2404) ;;
    *) echo "NVIDIA signs no CUDA for $PRETTY_NAME with the key that Berth knows: start from Debian 12 or Ubuntu 22.04 or 24.04."
       exit 1 ;;
esac
case $(uname -m) in x86_64) kind=x86_64 ;; aarch64) kind=sbsa ;; *) echo "There is no CUDA for $(uname -m)."; exit 1 ;; esac
apt-get -qy install curl ca-certificates gpg
ring=/usr/share/keyrings/nvidia-cuda.asc
curl -fsSL --retry 2 --connect-timeout 30 --max-filesize 100000 -o $ring "$SOURCE/$name/$kind/$KEY" || {
    echo "$SOURCE does not give $name/$kind/$KEY: name another mirror in BERTH_SOURCES (cuda=https://…)."; exit 1
}
# One key and no other in it, since apt believes them all.
found=$(gpg --show-keys --with-colons $ring | awk -F: '$1 == "pub" { key = 1 } $1 == "fpr" && key { print $10; key = 0 }')
[ "$found" = "$FINGERPRINT" ] || { rm -f $ring; echo "The key at $SOURCE is not NVIDIA's: its fingerprint is ${found:-missing}."; exit 1; }
chmod 644 $ring
echo "deb [signed-by=$ring] $SOURCE/$name/$kind/ /" > /etc/apt/sources.list.d/nvidia-cuda.list
apt-get -q update
apt-get -qy install cuda-toolkit-12
cat > /etc/profile.d/cuda.sh <<'END'
[ ! -d /usr/local/cuda/bin ] || PATH=/usr/local/cuda/bin:$PATH
END
/usr/local/cuda/bin/nvcc --version
