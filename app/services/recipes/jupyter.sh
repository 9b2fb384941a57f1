# JupyterLab in an environment of its own: `jupyter lab`, and `ssh -L 8888:127.0.0.1:8888` from outside.
apt-get -qy install python3-venv
rm -rf /opt/jupyter
python3 -m venv /opt/jupyter
/opt/jupyter/bin/pip --disable-pip-version-check install -q --no-cache-dir --index-url "$SOURCE" jupyterlab || {
    echo "$SOURCE does not give jupyterlab: name another mirror in BERTH_SOURCES (jupyter=https://…)."; exit 1
}
ln -sf /opt/jupyter/bin/jupyter /usr/local/bin/jupyter
ln -sf /opt/jupyter/bin/jupyter-lab /usr/local/bin/jupyter-lab
if [ -d /usr/share/applications ]; then
    cat > /usr/share/applications/berth-jupyter.desktop <<'END'
[Desktop Entry]
Type=Application
Name=JupyterLab
Exec=jupyter-lab
Terminal=true
Categories=Development;IDE;
END
fi
jupyter lab --version
